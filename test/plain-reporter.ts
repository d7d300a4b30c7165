import type { Reporter, SerializedError, TestModule } from 'vitest/node';

/**
 * Names the tests that needed a second try, and ends the run with one plain line, `N passed, N failed[, N skipped]`, for people and
 * scripts alike.
 */
export default class PlainReporter implements Reporter {
  // What is said of a run that ends before its tests do.
  #line = '0 passed, 1 failed';

  onInit(): void {
    process.once('exit', () => console.log(this.#line));
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const count = { passed: 0, failed: unhandled.length, skipped: 0, pending: 0 };
    for (const module of modules) {
      for (const test of module.children.allTests()) {
        count[test.result().state]++;
        if (test.diagnostic()?.flaky === true)
          console.log(
            `flaky: ${module.relativeModuleId} > ${test.fullName} failed, and passed when it was tried again`,
          );
      }
      // An import or a hook that fails takes its tests with it unseen: each counts as one failure.
      count.failed += module.errors().length;
      for (const suite of module.children.allSuites()) count.failed += suite.errors().length;
    }
    if (modules.length === 0 && count.failed === 0) count.failed = 1;
    const skipped = count.skipped + count.pending;
    this.#line = `${count.passed} passed, ${count.failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
  }
}
