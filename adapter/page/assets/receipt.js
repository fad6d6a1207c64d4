// The receipt of what was done: which gateways enforce it, as it becomes so.
import { byId, el, mark, say } from './dom.js';
import { number, plural, span } from './format.js';

let source = null;

function names(title, list, count) {
  if (count === 0) return [];
  const more = count > list.length ? `, and ${number(count - list.length)} more` : '';
  return [el('p', { class: 'names' }, el('b', {}, `${title} (${number(count)}): `), list.join(', ') + more)];
}

function sentence(news) {
  const g = news.gateways;
  const concerned = g.enforced + g.pending_count;
  if (concerned === 0) return `Stored. No connected gateway ${g.cannot ? 'can be told' : 'is concerned'}.`;
  if (news.done) return `Enforced by ${concerned === 1 ? 'the one gateway' : `all ${number(concerned)} connected gateways`} concerned, after ${span(news.took_ms)}.`;
  return `Enforced by ${number(g.enforced)} of ${plural(concerned, 'connected gateway', 'connected gateways')}.`;
}

// cannot says what becomes of those whose protocol cannot carry it.
function cannot(count, state) {
  if (count === 0) return [];
  const rest = state === 'revoked' ? 'go on accepting it' : 'go on refusing what they refuse until they restart';
  return [el('p', { class: 'names' }, mark('warn', `${plural(count, 'gateway', 'gateways')} cannot be told by their protocol, and ${rest}.`))];
}

function asides(g) {
  if (g.not_concerned === 0) return [];
  return [el('p', { class: 'hint' }, `${plural(g.not_concerned, 'gateway is', 'gateways are')} not concerned: other tenants, or what they ask for.`)];
}

function draw(title, news, state) {
  const g = news.gateways;
  const concerned = g.enforced + g.pending_count;
  const bar = el('progress', { max: Math.max(1, concerned), value: concerned ? g.enforced : 1, 'aria-label': 'Gateways that enforce it' });
  const kind = news.done ? (g.unreachable_count || g.cannot ? 'warn' : 'ok') : 'wait';
  byId('receipt').replaceChildren(
    el('h3', {}, title), bar, el('p', {}, mark(kind, sentence(news))),
    ...names('Waiting for', g.pending, g.pending_count),
    ...names('Not reachable, will learn of it when they come back', g.unreachable, g.unreachable_count),
    ...cannot(g.cannot, state), ...asides(g), el('p', { class: 'hint' }, `Version ${news.version}`));
}

function over(text) {
  source?.close();
  source = null;
  if (text) {
    byId('receipt').append(el('p', { class: 'notice warn' }, text));
    say(byId('receipt-said'), text);
  }
}

// watch follows the receipt of a version. Only the beginning and the end are said
// aloud.
export function watch(title, query) {
  over();
  const box = byId('receipt');
  box.hidden = false;
  box.replaceChildren(el('h3', {}, title), el('p', {}, mark('wait', 'Stored. Asking the gateways…')));
  say(byId('receipt-said'), `${title} Stored.`);
  source = new EventSource(`/page/receipts?${query}`);
  source.onmessage = (event) => {
    const news = JSON.parse(event.data);
    draw(title, news, query.get('state'));
    if (!news.done) return;
    over();
    say(byId('receipt-said'), `${title} ${sentence(news)}`);
  };
  source.addEventListener('timeout', () => over('A minute has passed, and some have not confirmed it. They are listed under Gateways.'));
  source.addEventListener('failed', () => over('It is stored, but how far it has come cannot be told now.'));
  source.addEventListener('ended', () => over());
  source.onerror = () => over('It is stored, but the connection was lost: look at Gateways.');
}

// said shows an answer that needs no receipt.
export function said(text) {
  over();
  byId('receipt').hidden = false;
  byId('receipt').replaceChildren(el('p', {}, mark('ok', text)));
  say(byId('receipt-said'), text);
}

export function clear() {
  over();
  byId('receipt').hidden = true;
}
