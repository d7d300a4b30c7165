/** Door 4: for tests of handlers and of what they are mounted in. */
export { type InjectHandler, type InjectRequest, inject } from './inject.js';
export { createTestServer, type Logged, type TestServer } from './server.js';
