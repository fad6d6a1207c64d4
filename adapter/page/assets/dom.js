// The document, by our own few functions. Text goes in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

// el makes an element; attributes that are null are left out.
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

// say writes text where it differs: what stays is not drawn again.
export function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

// note shows a sentence in a place for it, or hides the place. The kind is its colour.
export function note(node, text, kind = '') {
  node.className = `notice ${kind}`;
  node.textContent = text;
  node.hidden = text === '';
}

// mark is a state in words and colour, with a sign for who sees no colours.
export function mark(kind, text) {
  return el('span', { class: `mark ${kind}` }, text);
}
