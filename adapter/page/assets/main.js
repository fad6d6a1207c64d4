// The page: who has signed in sees the console, everybody else the form.
import { byId, note, show } from './dom.js';
import * as act from './act.js';
import * as changes from './changes.js';
import * as chart from './chart.js';
import * as dialog from './dialog.js';
import * as gateways from './gateways.js';
import * as http from './http.js';
import * as letters from './letters.js';
import * as live from './live.js';
import * as look from './look.js';
import * as receipt from './receipt.js';
import { showSources } from './sources.js';
import { showDelivery, showLink, showValues } from './status.js';

const sign = 60000; // milliseconds between two signs of life of whoever uses the page
let beat = 0;

function values(all) {
  showValues(all);
  if (all.log) gateways.at(all.log.version);
  if ('sources' in all) showSources(all.sources);
  if ('gateways_error' in all) gateways.failed(all.gateways_error);
  if ('dead_letters' in all) letters.counted(all.dead_letters);
}

function frame(f) {
  if (f.values) values(f.values);
  if (f.changes || f.whole) changes.take(f.changes ?? [], f.whole);
  if (f.deliveries || f.whole) chart.take(f.deliveries ?? [], f.whole);
  if (f.deliveries?.length) showDelivery(f.deliveries.at(-1));
  if (f.gateways) {
    gateways.take(f.gateways);
    gateways.refresh();
  }
}

function enter(who) {
  http.use(who.token);
  byId('client').textContent = who.client;
  show(byId('gate'), false);
  show(byId('console'), true);
  document.title = 'Revocations';
  letters.first();
  beat = setInterval(gateways.refresh, 1000);
  live.listen({ frame, state: showLink, ended: over, stillIn });
}

async function stillIn() {
  try {
    if ((await http.session()).client) return true;
  } catch {
    return true; // the adapter is away: that says nothing of the session
  }
  over();
  return false;
}

// wipe leaves nothing in the document of what was seen.
function wipe() {
  changes.take([], true);
  gateways.forget();
  for (const node of document.querySelectorAll('tbody, #dialog-text, #receipt, #receipt-said')) node.replaceChildren();
  for (const node of document.querySelectorAll('.figures dd, .verdict, #chart-said, #client')) node.textContent = '';
  for (const node of document.querySelectorAll('.verdict')) node.className = 'verdict idle';
}

// leave shows the form in place of the console, and nothing of what was there.
function leave(why) {
  live.stop();
  clearInterval(beat);
  http.use('');
  dialog.close();
  act.reset();
  look.reset();
  receipt.clear();
  wipe();
  show(byId('console'), false);
  show(byId('gate'), true);
  document.title = 'Sign in – Revocations';
  note(byId('sign-in-note'), why, 'warn');
  byId(byId('client-id').value ? 'client-secret' : 'client-id').focus();
}

const over = () => { if (!byId('console').hidden) leave('Your session has ended. Sign in again.'); };

async function signIn(event) {
  event.preventDefault();
  const form = event.currentTarget;
  note(byId('sign-in-note'), '');
  try {
    const who = await http.signIn(new FormData(form));
    form.elements.client_secret.value = '';
    enter(who);
    byId('title').focus(); // the keyboard begins at the top, and Enter does nothing
  } catch (problem) {
    note(byId('sign-in-note'), problem.message, 'bad');
    form.elements.client_secret.select();
  }
}

async function signOut() {
  try {
    await http.signOut();
    leave('You have signed out.');
  } catch (problem) {
    if (problem.status !== 401) dialog.tell('Signing out has failed', [problem.message]);
  }
}

// A person who reads and scrolls is there; a page that is merely open is not.
function keepAlive() {
  let last = Date.now();
  const signOfLife = () => {
    if (byId('console').hidden || Date.now() - last < sign) return;
    last = Date.now();
    stillIn();
  };
  for (const event of ['pointerdown', 'keydown', 'wheel']) addEventListener(event, signOfLife, { passive: true });
}

async function start() {
  byId('sign-in').addEventListener('submit', signIn);
  byId('sign-out').addEventListener('click', signOut);
  http.onEnd(over);
  dialog.start();
  gateways.start();
  changes.start(look.open);
  act.start();
  look.start();
  keepAlive();
  let who = {};
  try {
    who = await http.session();
  } catch (problem) {
    return leave(problem.message);
  }
  return who.client ? enter(who) : leave('');
}

start();
