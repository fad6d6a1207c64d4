// The band at the top: ready or why not, behind or not, and the figures.
import { byId, say } from './dom.js';
import { number, plural, rate, span } from './format.js';

function verdict(id, kind, text) {
  const node = byId(id);
  if (node.className !== `verdict ${kind}`) node.className = `verdict ${kind}`;
  say(node, text);
}

function readiness(status) {
  if (!status.ready) return verdict('ready', 'bad', `Not ready: ${status.reason || 'no reason is given'}. Gateways keep what they have.`);
  if (status.hub === 'unreachable') return verdict('ready', 'bad', 'The hub, which stores revocations, is unreachable. Gateways keep what they have, nothing new is learnt.');
  if (status.stale) return verdict('ready', 'warn', 'Ready, but for some seconds the hub has not confirmed that nothing is missing.');
  return verdict('ready', 'ok', 'Ready: everything that is revoked is known here.');
}

export function showValues(values) {
  if (values.status) readiness(values.status);
  if (values.log) {
    say(byId('f-revoked'), number(values.log.revoked));
    say(byId('f-rate'), rate(values.log.rate));
    say(byId('f-version'), values.log.version);
  }
  if ('dead_letters' in values) {
    const n = values.dead_letters;
    say(byId('f-letters'), n === null ? '–' : number(n));
    byId('f-letters').className = n > 0 ? 'warn' : '';
  }
}

export function showDelivery(delivery) {
  say(byId('f-delivery'), delivery.pending > 0 ? `over ${span(delivery.took_ms)}` : span(delivery.took_ms));
  byId('f-delivery').className = delivery.pending > 0 ? 'bad' : '';
}

// showGateways says how many are behind; who is not connected is no fault of the
// adapter, but refuses nothing new.
export function showGateways(counts) {
  const total = counts.current + counts.catching + counts.behind + counts.gone;
  say(byId('f-current'), `${number(counts.current)} of ${number(total)}`);
  if (total === 0) return verdict('behind', 'idle', 'No gateway is known yet.');
  const faults = [];
  if (counts.behind) faults.push(`${plural(counts.behind, 'gateway is', 'gateways are')} behind`);
  if (counts.gone) faults.push(`${plural(counts.gone, 'gateway is', 'gateways are')} not connected`);
  if (faults.length === 0 && counts.catching) return verdict('behind', 'idle', `${plural(counts.catching, 'gateway is', 'gateways are')} catching up.`);
  if (faults.length === 0) return verdict('behind', 'ok', total === 1 ? 'The gateway is up to date.' : `All ${number(total)} gateways are up to date.`);
  return verdict('behind', counts.behind ? 'bad' : 'warn', `${faults.join(', ')}.`);
}

export function showLink(state) {
  const node = byId('link');
  node.className = state === 'live' ? 'pill ok' : 'pill warn';
  say(node, state === 'live' ? 'Live' : 'Connection lost, trying again');
  document.body.classList.toggle('lost', state !== 'live');
}
