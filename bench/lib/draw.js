// Charts as SVG, drawn by Vega. The same chart is always the same text.
import { logger, None, parse, View } from 'vega';
import { compile } from 'vega-lite';

const INK = '#1f2328';
const FAINT = '#d1d9e0';
const FONT = 'system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif';

/** On a ground of its own, so that it can be read on light and on dark pages. */
const config = {
  background: '#ffffff',
  padding: 16,
  font: FONT,
  axis: {
    domainColor: FAINT,
    gridColor: '#eaeef2',
    tickColor: FAINT,
    labelColor: INK,
    titleColor: INK,
    titleFontWeight: 'normal',
    labelFontSize: 12,
    titleFontSize: 12,
    labelLimit: 260,
  },
  header: {
    labelColor: INK,
    titleColor: INK,
    labelFontSize: 12,
    labelFontWeight: 'bold',
    titleFontWeight: 'normal',
  },
  legend: { labelColor: INK, titleColor: INK, labelFontSize: 12, labelLimit: 260, titleFontWeight: 'normal' },
  title: { color: INK, fontSize: 14, anchor: 'start', fontWeight: 'bold', offset: 12 },
  view: { stroke: null },
  range: {
    category: ['#0969da', '#bf8700', '#1a7f37', '#cf222e', '#8250df', '#57606a', '#bc4c00', '#0a7ea4'],
  },
};

/**
 * @param {object} chart a specification of Vega-Lite, without its looks
 * @returns {Promise<string>}
 */
export async function draw(chart) {
  // Its warnings are about charts that grow and shrink with a page.
  const { spec } = compile(chart, { config, logger: logger(None) });
  const view = new View(parse(spec), { renderer: 'none' });
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}
