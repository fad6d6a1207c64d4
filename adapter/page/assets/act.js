// Revoke and approve.
import { byId, el, note } from './dom.js';
import { confirm } from './dialog.js';
import { plural } from './format.js';
import { ask } from './http.js';
import * as receipt from './receipt.js';

const digestPrefix = 'sha256:';

// idOf is a token by the name that it has outside.
export const idOf = (name) => (name.startsWith(digestPrefix) ? { sha256: name.slice(digestPrefix.length) } : { jti: name });

const time = (text) => (text ? new Date(text).toISOString() : undefined);
const optional = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => value));

// changeOf reads the form: what it names, and how that is called in a sentence.
function changeOf(form) {
  const f = Object.fromEntries([...new FormData(form)].map(([key, value]) => [key, value.trim()]));
  const more = { tenant: f.tenant };
  switch (f.what) {
    case 'token':
      if (!f.token) throw new Error('Type or paste the token.');
      return { series: 'tokens', name: 'the token', tokens: [optional({ token: f.token, ...more })], reason: f.reason };
    case 'jti':
      if (!f.jti) throw new Error('Type the id of the token.');
      return { series: 'tokens', name: f.jti, tokens: [optional({ ...idOf(f.jti), ...typeOf(f), expires_at: time(f.expires), ...more })], reason: f.reason };
    default:
      if (!f.claim || !f.value) throw new Error('Type the claim and its value.');
      return { series: 'rules', name: `${f.claim}=${f.value}`, rules: [optional({ claim: f.claim, value: f.value, issued_before: time(f.before), ...more })], reason: f.reason };
  }
}

const typeOf = (f) => (f.jti.startsWith(digestPrefix) ? {} : { type: f.type });

function bodyOf(change, state) {
  return optional({ tokens: change.tokens, rules: change.rules, state, reason: change.reason });
}

// weigh has the operator look twice at what is wide, or takes a revocation back.
async function weigh(change, state) {
  if (state === 'revoked' && !change.rules) return true;
  const plan = await ask('POST', '/revocations', { ...bodyOf(change, state), dry_run: true });
  const what = change.rules ? `every token that carries this claim and was issued ${change.rules[0].issued_before ? 'before the time' : 'until now'}` : 'this token';
  const effect = state === 'revoked' ? `Gateways will refuse ${what}.` : `Gateways will accept ${what} again, as long as nothing else revokes it.`;
  const gateways = typeof plan.gateways_concerned === 'number' ? ` ${plural(plan.gateways_concerned, 'gateway is', 'gateways are')} concerned.` : '';
  const already = plan.already ? ` It is ${state} already.` : '';
  const content = [el('p', { class: 'key' }, change.name), el('p', {}, effect + gateways + already)];
  return state === 'revoked' ? confirm('Revoke all of these?', content, 'Revoke') : confirm('Approve again?', content, 'Approve', 'primary');
}

function titleOf(change, state, answer) {
  const done = state === 'revoked' ? 'Revoked' : 'Approved';
  if (answer.expired && !answer.new) return `${change.name} has expired already.`;
  if (answer.already && !answer.new) return state === 'revoked' ? `${change.name} was revoked already.` : `${change.name} is not revoked: nothing was approved.`;
  return `${done} ${change.name}.`;
}

// carryOut does what was asked for, and shows its receipt.
export async function carryOut(change, state) {
  if (!(await weigh(change, state))) return false;
  const answer = await ask('POST', '/revocations', bodyOf(change, state));
  const title = titleOf(change, state, answer);
  if (!answer.version) receipt.said(title);
  else {
    const query = new URLSearchParams({ version: answer.version, series: change.series, state });
    for (const tenant of answer.tenants ?? []) query.append('tenant', tenant);
    receipt.watch(title, query);
  }
  byId('receipt').scrollIntoView({ block: 'nearest' });
  return true;
}

function choose() {
  const what = byId('act-form').elements.what.value;
  for (const part of byId('act-form').querySelectorAll('[data-for]')) part.hidden = part.dataset.for !== what;
}

async function submit(event) {
  event.preventDefault();
  const form = event.currentTarget;
  const state = event.submitter?.value || 'revoked';
  note(byId('act-note'), '');
  busy(form, 'true');
  try {
    if (await carryOut(changeOf(form), state)) clearSecrets(form);
  } catch (problem) {
    note(byId('act-note'), problem.message, 'bad');
  }
  busy(form, 'false');
}

// busy keeps an impatient second click from being a second order. The button keeps
// the focus.
function busy(form, whether) {
  form.setAttribute('aria-busy', whether);
  for (const button of form.querySelectorAll('button')) button.setAttribute('aria-disabled', whether);
}

// clearSecrets leaves no token on the screen.
function clearSecrets(form) { form.elements.token.value = ''; }

export function start() {
  const form = byId('act-form');
  form.addEventListener('submit', (event) => {
    if (form.getAttribute('aria-busy') === 'true') event.preventDefault();
    else submit(event);
  });
  form.addEventListener('change', choose);
}

export function reset() {
  byId('act-form').reset();
  note(byId('act-note'), '');
  choose();
}
