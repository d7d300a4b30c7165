throw new Error('servers/hyper-express.js puts the engine here');
