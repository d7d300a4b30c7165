import bound from './bound.js';
import channels from './channels.js';
import chaos from './chaos.js';
import churn from './churn.js';
import connections from './connections.js';
import costs from './costs.js';
import cpu from './cpu.js';
import download from './download.js';
import echo from './echo.js';
import file from './file.js';
import grid from './grid.js';
import hello from './hello.js';
import hono from './hono.js';
import iocpu from './iocpu.js';
import json from './json.js';
import mixed from './mixed.js';
import overload from './overload.js';
import ping from './ping.js';
import placement from './placement.js';
import publish from './publish.js';
import quiet from './quiet.js';
import readers from './readers.js';
import reload from './reload.js';
import runaway from './runaway.js';
import sizes from './sizes.js';
import slow from './slow.js';
import sse from './sse.js';
import start from './start.js';
import storm from './storm.js';
import streaming from './streaming.js';
import upload from './upload.js';
import wait from './wait.js';

/**
 * In the order in which they run and are listed.
 * @type {readonly import('../run.js').Scenario[]}
 */
export const scenarios = [
  hello,
  iocpu,
  start,
  grid,
  cpu,
  costs,
  ping,
  bound,
  mixed,
  wait,
  overload,
  runaway,
  chaos,
  reload,
  placement,
  echo,
  publish,
  sse,
  channels,
  connections,
  churn,
  quiet,
  storm,
  download,
  upload,
  readers,
  slow,
  sizes,
  streaming,
  file,
  json,
  hono,
];
