// The one dialog: it asks before what cannot be undone, and shows what is long.
import { byId } from './dom.js';

let settle = () => {}; // answers whoever waits

function open(title, content, answers) {
  settle(false);
  const dialog = byId('dialog');
  byId('dialog-h').textContent = title;
  byId('dialog-text').replaceChildren(...content);
  byId('dialog-no').textContent = answers.no;
  byId('dialog-yes').textContent = answers.yes ?? '';
  byId('dialog-yes').hidden = !answers.yes;
  byId('dialog-yes').className = answers.kind ?? 'danger';
  dialog.showModal();
  byId('dialog-no').focus();
  return new Promise((resolve) => {
    settle = (yes) => {
      settle = () => {};
      dialog.close();
      resolve(yes);
    };
  });
}

// confirm returns whether the answer is yes.
export const confirm = (title, content, yes, kind) => open(title, content, { no: 'Cancel', yes, kind });

export const tell = (title, content) => open(title, content, { no: 'Close' });

export const close = () => settle(false);

// start listens to the buttons and to Esc. The event of closing comes late, when the
// next question may be open already: it is no answer to that one.
export function start() {
  byId('dialog-no').addEventListener('click', () => settle(false));
  byId('dialog-yes').addEventListener('click', () => settle(true));
  byId('dialog').addEventListener('cancel', (event) => { event.preventDefault(); settle(false); });
  byId('dialog').addEventListener('close', () => { if (!byId('dialog').open) settle(false); });
}
