/**
 * Clinic.js knows no server but node:net's, and no threads. Where it runs this process it is told the port, and kept out of the workers,
 * where its preloads would write over what they have collected here. I/O thread.
 */
import { isIPv6 } from 'node:net';

/** Where the injected files of its tools lie, and those of 0x, which `clinic flame` is made of. */
const INJECTS = /[\\/]@clinic[\\/]|[\\/]0x[\\/]lib[\\/]preload[\\/]/;
/** Preloads of `clinic doctor` and `clinic bubbleprof`, which name no folder: NODE_PATH does. */
const PRELOADS = /^(no-cluster|sampler|logger|detect-port)(\.js)?$/;
/** Flags that workers are to go on with; the value of the last three names what is loaded. Others are flags of the process. */
const FOR_WORKERS = /^(--enable-source-maps|-C|--conditions|--loader|--experimental-loader)$/;
const LOADING = /^(-r|--require|--import)$/;

type Env = Readonly<NodeJS.ProcessEnv>;

/** Whether NODE_OPTIONS has workers load what Clinic.js loads. */
const preloads = ({ NODE_PATH = '', NODE_OPTIONS = '' }: Env): boolean =>
  INJECTS.test(NODE_OPTIONS) || (INJECTS.test(NODE_PATH) && NODE_OPTIONS.includes('no-cluster'));

/** A server listens: `--on-port` and `--autocannon` of Clinic.js wait for that. Nothing where it does not run. */
export async function tellClinic(address: string, port: number): Promise<void> {
  if (!preloads(process.env) && !process.execArgv.some((flag) => INJECTS.test(flag))) return;
  const { default: cluster } = await import('node:cluster');
  // What the workers of a cluster would say. Clinic.js listens to that, too.
  cluster.emit('listening', {}, { address, port, addressType: isIPv6(address) ? 6 : 4 });
}

/** The environment of workers without the preloads of Clinic.js: `given`, or what they have by default. */
export function envWithoutClinic(given: Env | undefined, own: Env = process.env): Env | undefined {
  if (!preloads(own)) return given;
  const env = given ?? own;
  return { ...env, NODE_OPTIONS: withoutClinic(env['NODE_OPTIONS'] ?? '') };
}

function withoutClinic(options: string): string {
  const words = options.match(/(?:"(?:\\.|[^"])*"|[^\s"])+/g) ?? [];
  const kept: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const [flag = '', ...rest] = String(words[i]).split('=');
    const loads = LOADING.test(flag);
    if (!loads && !FOR_WORKERS.test(flag)) continue;
    const inline = rest.length > 0;
    const value = inline ? rest.join('=') : String(words[i + 1]);
    const bare = value.replaceAll('"', '');
    if (loads && (INJECTS.test(bare) || PRELOADS.test(bare))) continue;
    kept.push(String(words[i]));
    if (!inline && flag !== '--enable-source-maps') kept.push(String(words[++i]));
  }
  return kept.join(' ');
}
