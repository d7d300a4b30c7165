// Renders a page of React. What is there at once is sent at once; the table follows when its data has come.
import { PassThrough } from 'node:stream';
import { text } from 'offloop/handlers';
import { createElement } from 'react';
import { renderToPipeableStream } from 'react-dom/server';
import { Page } from './page.js';

export default function handler(req) {
  const [, seats = '20'] = /^\/(\d{1,4})?$/.exec(req.path) ?? [];
  if (req.path !== '/' && req.path !== `/${seats}`) return text('try /20\n', { status: 404 });

  return new Promise((resolve, reject) => {
    const body = new PassThrough();
    const { pipe, abort } = renderToPipeableStream(createElement(Page, { seats: Number(seats) }), {
      onShellReady: () =>
        resolve({ headers: { 'content-type': 'text/html; charset=utf-8' }, body: pipe(body) }),
      // Nothing has been sent yet: a 500.
      onShellError: reject,
      onError: (error) => req.signal.aborted || console.error(error),
    });
    // Nobody reads it any more.
    body.once('close', () => abort());
    req.signal.addEventListener('abort', () => abort(req.signal.reason));
  });
}
