// How numbers and times are written.

const whole = new Intl.NumberFormat('en');
const tenths = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const day = new Intl.DateTimeFormat('sv-SE', { dateStyle: 'short' });
const minute = new Intl.DateTimeFormat('sv-SE', { dateStyle: 'short', timeStyle: 'short' });

export const number = (n) => whole.format(n);
export const rate = (n) => (n >= 100 ? whole.format(Math.round(n)) : tenths.format(n));
export const plural = (n, one, many) => `${number(n)} ${n === 1 ? one : many}`;

// when is the time of a day, with the day where it is not today.
export function when(time) {
  const at = new Date(time);
  if (!time || Number.isNaN(at.getTime()) || at.getFullYear() < 1971) return '–';
  return day.format(at) === day.format(new Date()) ? clock.format(at) : minute.format(at);
}

// expiry is when a token expires by itself; nothing means never.
export function expiry(milliseconds) {
  if (!milliseconds) return 'never';
  const at = new Date(milliseconds);
  return Number.isNaN(at.getTime()) ? 'never' : minute.format(at);
}

export function span(milliseconds) {
  if (milliseconds < 10) return `${tenths.format(milliseconds)} ms`;
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 60000) return `${tenths.format(milliseconds / 1000)} s`;
  return `${tenths.format(milliseconds / 60000)} min`;
}

// short leaves out the middle of a long name.
export const short = (text) => (text.length <= 40 ? text : `${text.slice(0, 18)}…${text.slice(-18)}`);
