import { drawChart } from './chart.js';
import { Pinger } from './pinger.js';

const $ = (id) => document.getElementById(id);
const WINDOW = 20_000;

// ---------------------------------------------------------------------------------------------------------- controls

let where = 'pool';
let since = 0; // the figures count from here, so that they never mix both ways to run the work
let touchedAt = Number.NEGATIVE_INFINITY; // the controls follow the server, but not under the user's finger

function control(command) {
  touchedAt = performance.now();
  const body = JSON.stringify(command);
  fetch('/load', { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(() => {});
}

function setWhere(value) {
  where = value;
  since = performance.now();
}

function keepFiring() {
  $('open-out').textContent = `${$('open').value} at once`;
  control({ keepOpen: $('keep').checked ? Number($('open').value) : 0 });
}

for (const button of document.querySelectorAll('[data-fire]')) {
  button.addEventListener('click', () => control({ fire: Number(button.dataset.fire) }));
}
$('keep').addEventListener('change', keepFiring);
$('open').addEventListener('input', keepFiring);
for (const radio of document.querySelectorAll('[name=where]')) {
  radio.addEventListener('change', () => {
    setWhere(radio.value);
    control({ where });
  });
}

// ------------------------------------------------------------------------------------------------------------- pings

const inlinePing = new Pinger('/ping', 100, WINDOW);
const pooledPing = new Pinger('/ping-worker', 250, WINDOW);

/** When the work ran inline: [from, to] each, to shade the chart. */
const inlineSpans = [];

function markInline(running, now) {
  const last = inlineSpans.at(-1);
  if (running) {
    // Stats come late while the loop is blocked, so a gap of a second is still the same span.
    if (last !== undefined && now - last[1] < 1500) last[1] = now;
    else inlineSpans.push([now, now]);
  }
  while (inlineSpans.length > 0 && inlineSpans[0][1] < now - WINDOW) inlineSpans.shift();
}

// ------------------------------------------------------------------------------------------------------------- stats

let stats;
let failures = 0;

async function poll() {
  for (;;) {
    try {
      const answer = await fetch('/stats', { cache: 'no-store' });
      stats = await answer.json();
      failures = 0;
      show(stats);
    } catch {
      failures++;
    }
    $('gone').hidden = failures < 2;
    await new Promise((resolve) => setTimeout(resolve, failures === 0 ? 200 : 1000));
  }
}

function show({ server: { pool }, load, coresBusy, cores }) {
  const now = performance.now();
  const full = pool.queued >= pool.queueSize;
  markInline(load.where === 'inline' && load.open > 0, now);

  $('cores').innerHTML = `<b>${coresBusy.toFixed(1)}</b> of ${cores} cores busy`;
  showWorkers(pool.workers);

  $('queued').textContent = pool.queued;
  $('queue-size').textContent = pool.queueSize;
  $('queue').classList.toggle('full', full);
  $('queue-fill').style.width = `${(100 * pool.queued) / pool.queueSize}%`;
  $('queue-max').style.left = `calc(${(100 * pool.queuedMax) / pool.queueSize}% - 2px)`;
  $('queue-max').style.opacity = pool.queuedMax > 0 ? 0.6 : 0;

  $('count-200').textContent = load.totals[200];
  $('count-503').textContent = load.totals[503];
  $('count-open').textContent = load.open;
  $('count-waiting').textContent = load.waiting > 0 ? `${load.waiting} not sent yet` : '';
  $('time-200').textContent = load.totals[200] > 0 ? `after ${long(load.meanMs[200])}` : '';
  $('time-503').textContent = load.totals[503] > 0 ? `after ${long(load.meanMs[503])}` : '';
  if (load.retryAfter !== null) {
    $('explain').innerHTML =
      `All ${pool.nMax} workers were busy and all ${pool.queueSize} places in the queue taken, so the next request was ` +
      `refused at once: <b class="strong">503</b> with <code>Retry-After: ${load.retryAfter}</code>, computed from the backlog. Nobody ` +
      'waits for an answer that would come too late, and memory stays bounded.';
  }
  tell(pool, load, full);

  // Another tab may have moved them, or the server stopped a load nobody watched.
  if (now - touchedAt > 1000) {
    if (where !== load.where) setWhere(load.where);
    document.querySelector(`[name=where][value=${where}]`).checked = true;
    $('keep').checked = load.keepOpen > 0;
    if (load.keepOpen > 0) {
      $('open').value = load.keepOpen;
      $('open-out').textContent = `${load.keepOpen} at once`;
    }
  }
}

function showWorkers(workers) {
  const list = $('workers');
  while (list.children.length > workers.length) list.lastChild.remove();
  while (list.children.length < workers.length) {
    const item = document.createElement('li');
    item.innerHTML =
      '<i></i><span class="name"></span><span class="state"></span><span class="served"></span>';
    list.append(item);
  }
  workers.forEach((worker, at) => {
    const item = list.children[at];
    const busy = worker.running > 0;
    item.className = busy ? 'busy' : '';
    item.querySelector('.name').textContent = worker.name;
    item.querySelector('.state').textContent =
      worker.state === 'ready' ? (busy ? 'busy' : 'idle') : worker.state;
    item.querySelector('.served').textContent = `${worker.served.toLocaleString('en')} served`;
  });
}

/** One sentence about what is going on. It changes only when the situation does, not with every number. */
function tell(pool, load, full) {
  let [mood, text] = ['', 'Nothing to do. Both pings are answered at once.'];
  if (load.where === 'inline' && load.open > 0) {
    mood = 'bad';
    text =
      'The work runs inline, on the I/O thread, which owns every socket. While it counts primes nothing else is ' +
      'answered: no ping, no new connection, and this page’s own numbers come late. The workers could have done it.';
  } else if (pool.busy === pool.workers.length && pool.busy > 0 && load.open > 0) {
    mood = 'good';
    text = `All ${pool.busy} workers are counting primes. The I/O thread is not: the inline ping is answered in between, at once. `;
    text += full
      ? 'The ping through the workers finds the queue full, and gets its 503 (a red cross) at once too.'
      : 'The ping through the workers waits for its turn like everybody else.';
  } else if (pool.busy > 0 && load.open > 0) {
    mood = 'good';
    text = 'Some workers are counting primes, others are free, so neither ping has to wait.';
  }
  if ($('story').textContent === text) return;
  $('story').className = `story ${mood}`;
  $('story').textContent = text;
}

// ----------------------------------------------------------------------------------------------------------- drawing

const long = (ms) =>
  ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;

function figure(id, ms) {
  const [number, unit] = ms === null ? ['–', ''] : long(ms).split(' ');
  $(id).innerHTML = `${number}<small>${unit}</small>`;
}

function draw() {
  const now = performance.now();
  inlinePing.forget(now);
  pooledPing.forget(now);
  drawChart($('chart'), {
    now,
    span: WINDOW,
    bands: inlineSpans,
    lines: [
      { color: '--amber', pinger: pooledPing },
      { color: '--blue', pinger: inlinePing },
    ],
  });
  figure('inline-p50', inlinePing.quantile(0.5, now, since));
  figure('inline-p99', inlinePing.quantile(0.99, now, since));
  figure('pooled-p50', pooledPing.quantile(0.5, now, since));
  figure('pooled-p99', pooledPing.quantile(0.99, now, since));
  $('pooled-refused').textContent = pooledPing.refused;
}

// Eight times a second is enough for the eye, and leaves the cores to the workers.
setInterval(draw, 125);
addEventListener('resize', draw);
draw();
void poll();
