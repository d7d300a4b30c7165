import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/global-setup.ts'],
    reporters: ['default', './test/plain-reporter.ts'],
    // Tests wait for conditions, each with a bound of its own. These are for what hangs, on however slow a machine.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 10_000 } },
    // A worker thread that ends while the engine still holds a socket in it aborts the whole process. Test files
    // therefore run in processes, where a forgotten close costs one file and not the run.
    pool: 'forks',
    maxWorkers: 2,
    // The built package is loaded by Node itself, as a user's program would. Were it transformed, the tests and a
    // handler module would each get an instance of their own.
    server: { deps: { external: [/\/dist\//] } },
  },
});
