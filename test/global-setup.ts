import { build } from 'tsup';
import type { TestProject } from 'vitest/node';

/**
 * Builds dist before the tests that import the package by its own name, and again before a re-run in watch mode.
 * Nothing is removed: a build for the tests must not take away the type declarations of the last full build.
 */
export default async function setup(project: TestProject): Promise<void> {
  await buildPackage();
  project.onTestsRerun(buildPackage);
}

async function buildPackage(): Promise<void> {
  await build({ dts: false, clean: false, silent: true });
}
