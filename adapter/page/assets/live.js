// The stream of what changes. EventSource connects again by itself after a broken
// connection; after a refusal we do.

const retry = 5000; // milliseconds
let source = null;
let timer = 0;
let wanted = null;

function open() {
  close();
  if (!wanted || document.hidden) return;
  source = new EventSource('/page/events');
  source.onopen = () => wanted.state('live');
  source.onmessage = (event) => wanted.frame(JSON.parse(event.data));
  source.addEventListener('ended', () => { close(); wanted?.ended(); });
  source.onerror = () => {
    wanted?.state('lost');
    if (source?.readyState === EventSource.CLOSED) refused();
  };
}

async function refused() {
  close();
  if (!(await wanted?.stillIn())) return;
  timer = setTimeout(open, retry);
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

// listen begins to listen: frame gets what changed, state "live" or "lost", ended
// is called when the session is over, stillIn says whether it is not. A page that
// nobody sees holds no connection.
export function listen(to) {
  wanted = to;
  open();
}

export function stop() {
  wanted = null;
  close();
}

document.addEventListener('visibilitychange', () => { if (document.hidden) close(); else open(); });
