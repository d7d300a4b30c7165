// A small line chart: time to the right, latency upwards on a logarithmic scale, on a bare canvas.

const FROM = 0.2; // ms at the bottom
const TO = 10_000; // ms at the top
const TICKS = [
  [1, '1 ms'],
  [10, '10 ms'],
  [100, '100 ms'],
  [1000, '1 s'],
  [10_000, '10 s'],
];

export function drawChart(canvas, { now, span, bands, lines }) {
  const scale = devicePixelRatio;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const style = getComputedStyle(canvas);
  const color = (name) => style.getPropertyValue(name);
  const g = canvas.getContext('2d');
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);

  const left = 58;
  const top = 8; // room for half a label
  const bottom = height - 20;
  const x = (at) => left + ((at - now + span) / span) * (width - left);
  const y = (ms) => {
    const share = Math.log(Math.max(ms, FROM) / FROM) / Math.log(TO / FROM);
    return bottom - Math.min(1, share) * (bottom - top);
  };

  g.fillStyle = color('--red-wash');
  for (const [from, to] of bands)
    g.fillRect(Math.max(left, x(from)), 0, Math.max(2, x(to) - Math.max(left, x(from))), bottom);

  g.font = `12px ${style.fontFamily}`;
  g.fillStyle = color('--muted');
  g.strokeStyle = color('--line');
  g.lineWidth = 1;
  g.textBaseline = 'middle';
  g.textAlign = 'right';
  for (const [ms, label] of TICKS) {
    const at = Math.round(y(ms)) + 0.5;
    line(g, left, at, width, at);
    g.fillText(label, left - 8, at);
  }
  g.textBaseline = 'alphabetic';
  for (let ago = 0; ago <= span; ago += width < 480 ? 10_000 : 5000) {
    g.textAlign = ago === 0 ? 'right' : ago === span ? 'left' : 'center';
    g.fillText(ago === 0 ? 'now' : `−${ago / 1000} s`, x(now - ago), height - 3);
  }

  g.save();
  g.beginPath();
  g.rect(left, 0, width - left, height);
  g.clip();
  for (const { color: name, pinger } of lines) drawPings(g, x, y, now, pinger, color(name), color('--red'));
  g.restore();
}

function drawPings(g, x, y, now, pinger, color, red) {
  g.strokeStyle = color;
  g.lineWidth = 2;
  g.lineJoin = 'round';
  g.beginPath();
  let drawing = false;
  for (const { at, ms, refused } of pinger.samples) {
    // A refused ping interrupts the line: it says nothing about how long an answer takes.
    if (refused) drawing = false;
    else if (drawing) g.lineTo(x(at), y(ms));
    else {
      g.moveTo(x(at), y(ms));
      drawing = true;
    }
  }
  g.stroke();

  // The one that is out has waited this long already.
  if (pinger.sentAt !== null && now - pinger.sentAt > pinger.interval) {
    g.setLineDash([3, 3]);
    line(g, x(pinger.sentAt), y(now - pinger.sentAt), x(now), y(now - pinger.sentAt));
    g.setLineDash([]);
  }

  g.strokeStyle = red;
  g.lineWidth = 1.5;
  for (const { at, ms, refused } of pinger.samples) {
    if (!refused) continue;
    const [cx, cy] = [x(at), y(ms)];
    line(g, cx - 3.5, cy - 3.5, cx + 3.5, cy + 3.5);
    line(g, cx - 3.5, cy + 3.5, cx + 3.5, cy - 3.5);
  }
}

function line(g, x1, y1, x2, y2) {
  g.beginPath();
  g.moveTo(x1, y1);
  g.lineTo(x2, y2);
  g.stroke();
}
