/** The browser that pages are tested in. */
import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const PATH = '/usr/bin/chromium';
const ARGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Where there is no browser pages go untested, except where they must not. */
export const noBrowser = !existsSync(PATH) && !process.env['CI'];

export const launch = (): Promise<Browser> => chromium.launch({ executablePath: PATH, args: ARGS });
