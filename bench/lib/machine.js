import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { hasBuild, version as offloopVersion } from './needs.js';
import { runProgram } from './program.js';
import { wrkVersion } from './wrk.js';

/**
 * Figures without the machine they were taken on mean nothing.
 * @param {boolean} [hurried] nobody will look at the figures
 */
export async function machineFacts(hurried = false) {
  return {
    date: new Date().toISOString(),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    os: `${process.platform} ${release()} ${process.arch}`,
    busyBefore: hurried ? null : await busyShare(),
    node: process.version,
    engine: await engineBuild(),
    offloop: hasBuild() ? offloopVersion() : null,
    revision: revision(),
    wrk: wrkVersion(),
    peers: peerVersions(),
  };
}

/** The share of the machine that others use right now, 0 to 1. */
async function busyShare() {
  const before = cpuTimes();
  await sleep(500);
  const after = cpuTimes();
  return 1 - (after.idle - before.idle) / (after.all - before.all);
}

function cpuTimes() {
  const times = cpus().map((core) => core.times);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  return { idle: sum(times.map(({ idle }) => idle)), all: sum(times.flatMap((each) => Object.values(each))) };
}

async function engineBuild() {
  try {
    return (await runProgram('./engine.js')).build;
  } catch {
    return null;
  }
}

/** The commit that is checked out, with a + if there is more; null without git. */
function revision() {
  const git = (...args) =>
    spawnSync('git', args, { cwd: new URL('../..', import.meta.url), encoding: 'utf8' });
  const { status, stdout } = git('rev-parse', '--short', 'HEAD');
  if (status !== 0) return null;
  return stdout.trim() + (git('status', '--porcelain', '--', 'src').stdout === '' ? '' : '+');
}

function peerVersions() {
  const lock = JSON.parse(readFileSync(new URL('../package-lock.json', import.meta.url), 'utf8'));
  const names = Object.keys(lock.packages[''].dependencies);
  const versions = names.map((name) => [name, lock.packages[`node_modules/${name}`].version]);
  // What stands for the engine has none.
  return Object.fromEntries(versions.filter(([, version]) => version !== undefined));
}
