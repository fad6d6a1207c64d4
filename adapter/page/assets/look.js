// Look up what is known of a token or rule, and why.
import { byId, el, mark, note } from './dom.js';
import { carryOut, idOf } from './act.js';
import { expiry, number, when } from './format.js';
import { ask } from './http.js';

const states = { revoked: ['bad', 'Revoked: gateways refuse it'], used: ['bad', 'Used up: gateways refuse it'], approved: ['ok', 'Approved again: gateways accept it'], none: ['idle', 'Not known: it is not revoked by itself'] };

const looksLikeToken = (text) => text.split('.').length === 3 && text.startsWith('ey');

function questionOf(form) {
  const text = form.elements.what.value.trim();
  return form.elements.opaque.checked || looksLikeToken(text) ? { token: text } : { key: text };
}

function fact(name, value) {
  return value === undefined || value === null || value === '' ? [] : [el('dt', {}, name), el('dd', {}, value)];
}

// until says how long it counts. Times come as milliseconds or as RFC 3339.
const until = (value) => (value === undefined || value === null ? '' : expiry(typeof value === 'number' && value > 8.64e15 ? 0 : value));

function figures(g) {
  if (!g) return '';
  const count = (value) => (Array.isArray(value) ? value.length : value ?? 0);
  return `${number(count(g.enforced))} enforce it, ${number(count(g.pending))} wait, ${number(count(g.unreachable))} not reachable, ${number(count(g.not_concerned))} not concerned, ${number(count(g.cannot))} cannot be told`;
}

function history(events) {
  if (!events?.length) return [];
  const lines = events.map((e) => el('tr', {}, el('td', { class: 'when' }, when(e.time)), el('td', {}, e.state ?? ''), el('td', {}, e.source ?? ''), el('td', {}, e.actor ?? ''), el('td', {}, e.reason ?? '')));
  const head = el('tr', {}, ...['Time', 'What', 'By way of', 'By', 'Reason'].map((title) => el('th', { scope: 'col' }, title)));
  return [el('div', { class: 'scroller', tabindex: '0', role: 'region', 'aria-label': 'What happened to it' }, el('table', {}, el('caption', {}, 'What happened to it'), el('thead', {}, head), el('tbody', {}, ...lines)))];
}

function changeOf(found) {
  const more = found.tenant ? { tenant: found.tenant } : {}; // without it every gateway is told
  if (found.domain !== 'rule') return { series: 'tokens', name: found.key, tokens: [{ ...idOf(found.key), ...more }] };
  const at = found.key.indexOf('=');
  return { series: 'rules', name: found.key, rules: [{ claim: found.key.slice(0, at), value: found.key.slice(at + 1), ...more }] };
}

function action(found) {
  if (!found.key || found.domain === 'refresh' || found.state === 'none') return [];
  if (found.rules?.length) return [el('p', { class: 'hint' }, 'A rule refuses it: to lift the rule, look that up.')];
  const [text, state, kind] = found.state === 'approved' ? ['Revoke', 'revoked', 'danger'] : ['Approve again…', 'approved', ''];
  const button = el('button', { type: 'button', class: kind }, text);
  const failed = el('p', { class: 'notice', role: 'alert', hidden: '' });
  button.addEventListener('click', () => carryOut(changeOf(found), state).catch((problem) => note(failed, problem.message, 'bad')));
  return [el('div', { class: 'buttons' }, button), failed];
}

function answer(found) {
  return [
    el('p', { class: 'big' }, mark(...(states[found.state] ?? ['idle', found.state]))),
    el('dl', { class: 'facts' }, ...fact('Name', found.key), ...fact('By the rule', (found.rules ?? []).join(', ')), ...fact('Counts until', until(found.active_until)),
      ...fact('Since', found.time ? when(found.time) : ''), ...fact('Reason', found.reason), ...fact('By', found.actor), ...fact('By way of', found.source),
      ...fact('Tenant', found.tenant), ...fact('Event', found.event_id), ...fact('Version', found.version ? String(found.version) : ''), ...fact('Gateways', figures(found.gateways))),
    ...history(found.events), ...action(found),
  ];
}

async function look(question) {
  const place = byId('look-answer');
  try {
    place.replaceChildren(...answer(await ask('POST', '/revocations/explain', question)));
  } catch (problem) {
    const none = problem.status === 404 ? answer({ state: 'none' }) : [el('p', { class: 'notice bad' }, problem.message)];
    place.replaceChildren(...none);
  }
}

// open looks up a name that the page shows elsewhere.
export function open(name) {
  byId('look-what').value = name;
  byId('look-opaque').checked = false;
  byId('look').scrollIntoView({ block: 'nearest' });
  byId('look-what').focus();
  look({ key: name });
}

export function start() {
  byId('look-form').addEventListener('submit', (event) => {
    event.preventDefault();
    look(questionOf(event.currentTarget));
  });
}

export function reset() {
  byId('look-form').reset();
  byId('look-answer').replaceChildren();
}
