// The same under a second name: another module, so another one to the server as well.
export { default } from './burn.js';
