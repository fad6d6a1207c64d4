// The adapter's JSON endpoints, asked in the page's session.

let token = '';
let ended = () => {};

// use sets the token that writes carry.
export const use = (value) => { token = value; };

// onEnd says what is done when the session turns out to be over.
export const onEnd = (what) => { ended = what; };

// Problem is an answer that is no success, as RFC 9457 has it.
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
  }
}

async function problemOf(response) {
  const text = await response.text();
  try {
    const said = JSON.parse(text);
    return new Problem(response.status, said.title ?? said.error ?? `Status ${response.status}`, said.detail ?? said.error_description ?? '');
  } catch {
    return new Problem(response.status, `The adapter answers ${response.status}`, text.slice(0, 200));
  }
}

async function send(path, options) {
  try {
    return await fetch(path, { credentials: 'same-origin', redirect: 'error', ...options });
  } catch {
    throw new Problem(0, 'The adapter cannot be reached', 'try again in a moment');
  }
}

// ask returns what an endpoint answers. What the page asks by itself is marked, so
// that it keeps no session alive.
export async function ask(method, path, body, by = 'person') {
  const headers = { Accept: 'application/json' };
  if (method !== 'GET') headers['X-CSRF-Token'] = token;
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  if (by === 'page') headers['X-Unattended'] = '1';
  const response = await send(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (!response.ok) {
    const problem = await problemOf(response);
    if (problem.status === 401 && !(await session()).client) ended();
    throw problem;
  }
  const text = await response.text();
  return text === '' ? null : JSON.parse(text);
}

// session says who has signed in.
export async function session() {
  const response = await send('/page/session', { method: 'GET' });
  return response.ok ? response.json() : {};
}

export async function signIn(form) {
  const response = await send('/page/session', { method: 'POST', body: new URLSearchParams(form) });
  if (!response.ok) throw await problemOf(response);
  return response.json();
}

export const signOut = () => ask('DELETE', '/page/session');
