/** The commands, their flags and their help. */
import { Command, CommanderError, Option } from 'commander';
import manifest from '../../package.json' with { type: 'json' };
import { EXIT, explain } from './errors.js';
import {
  type Flag,
  type FromFlags,
  flagOf,
  type Given,
  OWN_FLAGS,
  readFlags,
  SERVER_FLAGS,
  type ServeOptions,
} from './flags.js';
import { makePlan, type Plan } from './plan.js';
import { MEMBER_VARIABLE, type MemberOrders } from './supervisor.js';

type Own = keyof ServeOptions;
const FOR_SERVE: readonly Own[] = [
  'mount',
  'mountInline',
  'processes',
  'readyPath',
  'statsPath',
  'drainDelay',
  'stopTimeout',
  'quiet',
];
const FOR_DEV: readonly Own[] = [
  'mount',
  'mountInline',
  'readyPath',
  'statsPath',
  'stopTimeout',
  'quiet',
  'watch',
];
const FOR_ROUTES: readonly Own[] = ['mount', 'mountInline', 'readyPath', 'statsPath'];

/** Run the command line. Ends the process when something is wrong, and leaves nothing half started behind. */
export async function run(args: readonly string[]): Promise<void> {
  const orders = takeOrders();
  const program = new Command('offloop')
    .description('An HTTP and WebSocket server that runs your handlers on worker threads.')
    .version(manifest.version, '-v, --version')
    .exitOverride()
    .showHelpAfterError('(offloop --help says more)')
    .showSuggestionAfterError()
    .configureHelp({ showGlobalOptions: false });

  serving(program.command('serve'), FOR_SERVE)
    .description('Serve a handler module.')
    .action(async (module: string, given: Given) => {
      const plan = makePlan(module, read(given));
      if (orders !== undefined) {
        const { shareOut } = await import('./serve.js');
        const { runMember } = await import('./member.js');
        const shared = shareOut(plan);
        await runMember({ ...shared, server: { ...shared.server, port: orders.port } });
        return;
      }
      const { serve, serveWithProcesses } = await import('./serve.js');
      await (plan.own.processes > 1 ? serveWithProcesses(plan, args) : serve(plan));
    });
  serving(program.command('dev'), FOR_DEV)
    .description('Serve it on 127.0.0.1, show errors to the client, and reload when a file changes.')
    .action(async (module: string, given: Given) => {
      const plan: Plan = makePlan(module, read(given));
      const { dev } = await import('./dev.js');
      await dev(plan);
    });
  serving(program.command('routes'), FOR_ROUTES)
    .description('Load the modules, and show what would be served where.')
    .action(async (module: string, given: Given) => {
      const plan = makePlan(module, read(given));
      const { routes } = await import('./routes.js');
      console.log(await routes(plan));
      // Modules may have timers that keep the process alive.
      process.exit(EXIT.ok);
    });
  program
    .command('doctor')
    .description('Say whether a server can run here, and what would make it run better.')
    .option('--json', 'findings as JSON')
    .action(async ({ json }: { json?: boolean }) => {
      const { examine, report } = await import('./doctor.js');
      const findings = await examine();
      console.log(json === true ? JSON.stringify(findings, null, 2) : report(findings));
      process.exitCode = findings.some(({ state }) => state === 'bad') ? EXIT.failed : EXIT.ok;
    });

  try {
    await program.parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      // It has said what is wrong. Help and version are no errors.
      process.exit(error.exitCode === 0 ? EXIT.ok : EXIT.usage);
    }
    const { code, text } = await explained(error);
    console.error(`offloop: ${text}`);
    process.exit(code);
  }
}

async function explained(error: unknown): Promise<{ code: number; text: string }> {
  const { MemberFailure } = await import('./supervisor.js');
  return error instanceof MemberFailure ? error.explained : explain(error, flagOf);
}

function read(given: Given): FromFlags {
  const found = readFlags(given, process.env);
  if (found.unknown.length > 0)
    console.error(`[offloop] ${found.unknown.join(', ')}: no variables of offloop, so they are ignored`);
  return found;
}

/** What the supervisor of this process wants of it. Nobody else shall see that. */
function takeOrders(): MemberOrders | undefined {
  const text = process.env[MEMBER_VARIABLE];
  delete process.env[MEMBER_VARIABLE];
  return text === undefined || process.send === undefined ? undefined : (JSON.parse(text) as MemberOrders);
}

function serving(command: Command, own: readonly Own[]): Command {
  command
    .argument('<module>', 'path of the handler module')
    .addHelpText(
      'after',
      '\nEvery flag can be given in the environment: OFFLOOP_QUEUE_SIZE=64 for --queue-size 64. Flags win.\n' +
        'Exit codes: 0 stopped in an orderly way, 1 the server cannot run, 2 used in a wrong way.',
    );
  for (const flag of Object.values(SERVER_FLAGS)) if (flag !== null) addFlag(command, flag);
  for (const name of own) addFlag(command, OWN_FLAGS[name]);
  return command;
}

function addFlag(command: Command, { flag, value, help, many }: Flag): void {
  if (value === undefined) {
    command.addOption(new Option(`--${flag}`, help)).addOption(new Option(`--no-${flag}`).hideHelp());
    return;
  }
  const option = new Option(`--${flag} <${value}>`, help);
  if (many === true)
    option.argParser((text: string, before: string[] | undefined) => [...(before ?? []), text]);
  command.addOption(option);
}
