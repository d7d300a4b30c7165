import { html } from 'offloop/handlers';
import { greeting } from './greeting.js';

export default (req) => {
  if (req.pathInfo === '/oops') throw new Error('this is what the error page is for');
  return html(
    `<h1>${greeting}</h1><p>Change greeting.js and reload, or see an <a href="/oops">error</a>.</p>\n`,
  );
};
