// The last fifty changes. Rows are used again, and stand still while somebody is
// about to use one.
import { byId, el, mark, say, show } from './dom.js';
import { expiry, short, when } from './format.js';

const kept = 50;
const kinds = { token: 'token id', opaque: 'opaque token', refresh: 'refresh token', rule: 'rule' };
let latest = []; // the newest first
let open = () => {};

function line() {
  const button = el('button', { type: 'button', class: 'link' });
  button.addEventListener('click', () => open(button.dataset.name));
  return el('tr', {}, el('td', { class: 'when' }), el('td', {}), el('td', { class: 'name' }, button),
    el('td', { class: 'c-kind' }), el('td', { class: 'c-tenant' }), el('td', { class: 'num c-expires' }));
}

function fill(row, c) {
  const [seen, what, name, kind, tenant, expires] = row.children;
  say(seen, c.seen ? when(c.seen) : 'earlier');
  const state = c.state === 'revoked' ? ['bad', 'Revoked'] : ['ok', 'Approved'];
  if (what.textContent !== state[1]) what.replaceChildren(mark(...state));
  const button = name.firstElementChild;
  if (button.dataset.name !== c.name) {
    button.dataset.name = c.name;
    button.title = c.name;
    button.textContent = short(c.name);
  }
  say(kind, kinds[c.domain] ?? c.domain);
  say(tenant, c.tenant ?? '');
  say(expires, c.domain === 'rule' && !c.expires_at ? '–' : expiry(c.expires_at));
}

function held() {
  const body = byId('changes-rows');
  return body.matches(':hover') || body.contains(document.activeElement);
}

function draw() {
  show(byId('changes-held'), held());
  show(byId('changes-none'), latest.length === 0);
  if (held()) return;
  const body = byId('changes-rows');
  while (body.children.length < latest.length) body.append(line());
  while (body.children.length > latest.length) body.lastElementChild.remove();
  latest.forEach((c, i) => fill(body.children[i], c));
}

export function take(list, whole) {
  latest = [...list].reverse().concat(whole ? [] : latest).slice(0, kept);
  draw();
}

// start says what is done with the name of a change that is chosen.
export function start(choose) {
  open = choose;
  const body = byId('changes-rows');
  for (const event of ['mouseleave', 'focusout']) body.addEventListener(event, () => requestAnimationFrame(draw));
}
