// What is done on the talk page. Each scenario gives what it saw; tests/e2e/browser.rs says what is right.

// Says something and hears the answer.
exports.conversation = async (page) => {
  await page.open();
  await page.press('Talk');
  await page.tab.waitForSelector('#conversation li.you', { timeout: 40_000 });
  await page.responses(1);
  const shown = {
    said: await page.text('#conversation li.you'),
    answer: await page.text('#conversation li.june'),
    media: await page.text('#media'),
  };
  await page.press('Stop');
  await page.status('Not connected');
  await page.gatewayIsIdle();
  return { ...shown, played: page.playedMs, stillOpen: await page.stillOpen() };
};

// Presses Talk where there is no microphone, and types.
exports.noMicrophone = async (page) => {
  await page.open();
  await page.press('Talk');
  await page.tab.waitForSelector('#conversation li.note');
  await page.status('Typing only');
  await page.type('What is new?');
  await page.responses(1);
  const shown = {
    note: await page.text('#conversation li.note'),
    typed: await page.text('#conversation li.you'),
    answer: await page.text('#conversation li.june'),
    status: await page.text('#status'),
    offersMicrophone: await page.isVisible('#use-microphone'),
    sessionsAtWork: (await page.sessions()).filter((session) => session.at_work).length,
    openSockets: await page.openSockets(),
  };
  await page.press('Stop');
  await page.status('Not connected');
  await page.gatewayIsIdle();
  return { ...shown, stillOpen: await page.stillOpen() };
};

// Types without having pressed anything, ends the session, types in a second one, and leaves the page.
exports.typing = async (page) => {
  await page.open();
  const hint = await page.text('#hint');
  const hintBefore = await page.isVisible('#hint');
  await page.type('Good morning.');
  await page.responses(1);
  const hintAfter = await page.isVisible('#hint');
  await page.press('Stop');
  await page.status('Not connected');
  await page.type('Good evening.');
  await page.responses(2);
  const shown = {
    hint, hintBefore, hintAfter,
    typed: await page.texts('#conversation li.you'),
    answers: await page.texts('#conversation li.june'),
    notes: await page.texts('#conversation li.note'),
  };
  await page.tab.goto('about:blank');
  await page.gatewayIsIdle();
  return shown;
};

// Works the button by keyboard and looks who has the focus while the page connects and after it.
exports.focus = async (page) => {
  let connect;
  const mayConnect = new Promise((resolve) => { connect = resolve; });
  await page.tab.route('**/api/sessions', async (route) => {
    await mayConnect;
    await route.continue();
  });
  await page.open();
  await page.tab.focus('#start');
  await page.tab.keyboard.press('Enter');
  await page.status('Connecting');
  const button = page.tab.locator('#start');
  const connecting = { focused: await page.focused(), busy: await button.getAttribute('aria-busy') };
  connect();
  await page.status('Typing only');
  const connected = { focused: await page.focused(), busy: await button.getAttribute('aria-busy') };
  await page.tab.keyboard.press('Enter');
  await page.status('Not connected');
  return { connecting, connected, closed: { focused: await page.focused() } };
};

// Gives the API key by Enter.
exports.apiKey = async (page, { key }) => {
  await page.open();
  await page.press('Talk');
  await page.tab.waitForSelector('#key:focus');
  await page.tab.keyboard.type('a wrong key');
  await page.tab.keyboard.press('Enter');
  await page.tab.waitForSelector('text=did not accept');
  await page.tab.fill('#key', key);
  await page.tab.press('#key', 'Enter');
  await page.status('Typing only');
  return { address: page.tab.url(), addresses: page.addresses, asksForKey: await page.isVisible('#login') };
};

// Presses Enter in both fields of a page whose script has not arrived.
exports.withoutScript = async (page, { key }) => {
  await page.tab.route('**/talk.js', (route) => route.abort());
  await page.open();
  await page.tab.evaluate(() => { document.querySelector('#login').hidden = false; });
  await page.tab.fill('#key', key);
  await page.tab.press('#key', 'Enter');
  await page.type('Good morning.');
  return { address: page.tab.url(), addresses: page.addresses, line: await page.tab.inputValue('#line') };
};

// Another client attaches to the page's session; later the page takes it back.
exports.takenOver = async (page) => {
  await page.tab.clock.install();
  await page.open();
  await page.type('Good morning.');
  await page.responses(1);
  const session = await page.text('#session');
  const other = await page.tab.context().newPage();
  await other.goto(page.url);
  await other.evaluate(async (id) => {
    const { control_url: url, control_token: token } = await (await fetch(`/api/sessions/${id}`)).json();
    const socket = new WebSocket(url, 'edge.v1');
    socket.onopen = () => socket.send(JSON.stringify({ type: 'connection_init', protocol: 'edge.v1', token }));
    await new Promise((resolve) => { socket.onmessage = resolve; });
  }, session);
  await page.tab.getByRole('button', { name: 'Connect again' }).waitFor();
  // Every timer that could reconnect fires.
  await page.tab.clock.runFor(120_000);
  const away = {
    sockets: page.sockets, status: await page.text('#status'), note: (await page.texts('#conversation li.note')).at(-1),
    stillOpen: await page.stillOpen(),
  };
  await page.press('Connect again');
  await page.status('Typing only');
  return { away, sockets: page.sockets, sameSession: session === await page.text('#session') };
};

// The gateway closes with each of these codes in turn, and the page reconnects.
exports.reconnects = async (page, { codes }) => {
  await page.interceptChannel();
  await page.open();
  await page.press('Talk');
  for (const [n, code] of codes.entries()) {
    const connection = await page.connection(n + 1);
    await page.status('Typing only');
    await connection.close(code);
  }
  await page.connection(codes.length + 1);
  await page.status('Typing only');
  const resumed = page.connections.map(({ acks: [ack] }) => ack.resumed);
  return { resumed, sessions: (await page.sessions()).length };
};

// The gateway closes with a code, and the page leaves it at that.
exports.staysAway = async (page, { code }) => {
  await page.tab.clock.install();
  await page.interceptChannel();
  await page.open();
  await page.press('Talk');
  const connection = await page.connection(1);
  await page.status('Typing only');
  await connection.close(code);
  await page.status('Not connected');
  // Every timer that could reconnect fires.
  await page.tab.clock.runFor(120_000);
  return {
    connections: page.connections.length,
    note: (await page.texts('#conversation li.note')).at(-1),
    button: await page.text('#start'),
    stillOpen: await page.stillOpen(),
  };
};

// The control token has ended. `status` is what the gateway answers to the request for a new one; with `refused` it
// does not take that one either.
exports.tokenEnded = async (page, { status, refused }) => {
  await page.interceptChannel({ refused: refused && { 2: 4401 } });
  const requests = [];
  await page.tab.route('**/control-token', async (route) => {
    requests.push(new URL(route.request().url()).pathname);
    const session = await (await fetch(route.request().url().replace('/control-token', ''))).json();
    await route.fulfill({ status, json: status === 200 ? session : { status, detail: 'a token is needed' } });
  });
  await page.open();
  await page.press('Talk');
  const first = await page.connection(1);
  await page.status('Typing only');
  await first.close(4401);
  const session = await page.text('#session');
  if (status !== 200) {
    await page.tab.waitForSelector('#key:focus');
  }
  if (status !== 200 || refused) {
    await page.status('Not connected');
    return { session, requests, connections: page.connections.length, button: await page.text('#start') };
  }
  const second = await page.connection(2);
  await page.status('Typing only');
  return {
    session, requests,
    newToken: first.sent[0].token !== second.sent[0].token,
    resumed: second.acks[0].resumed,
  };
};

// The gateway pushes a new control token, then the connection breaks.
exports.tokenPushed = async (page) => {
  await page.interceptChannel();
  await page.open();
  await page.press('Talk');
  const first = await page.connection(1);
  await page.status('Typing only');
  const session = await (await fetch(new URL(`/api/sessions/${await page.text('#session')}`, page.url))).json();
  first.say({ type: 'control_token', controlToken: session.control_token, expiresAt: Math.floor(Date.now() / 1000) + 3600 });
  await first.close(1011);
  const second = await page.connection(2);
  return { usedThePushedToken: second.sent[0].token === session.control_token, resumed: second.acks[0].resumed };
};

// The control token is about to end, and the gateway has pushed no other.
exports.tokenAboutToEnd = async (page) => {
  await page.tab.clock.install();
  await page.interceptChannel();
  await page.tab.route('**/api/sessions', async (route) => {
    const response = await route.fetch();
    const session = await response.json();
    const endsAt = Math.floor(Date.now() / 1000) + 3600;
    await route.fulfill({ response, json: { ...session, control_token_expires_at: endsAt } });
  });
  await page.open();
  await page.press('Talk');
  const connection = await page.connection(1);
  await page.status('Typing only');
  await page.tab.clock.fastForward(3_000_000);
  const early = connection.sent.some(({ type }) => type === 'renew_token');
  await page.tab.clock.fastForward(590_000);
  return { early, request: await page.sent(connection, 'renew_token') };
};

// The gateway refuses the first attachment.
exports.failedStart = async (page) => {
  await page.tab.routeWebSocket(/\/v1\/ws/, (socket) => socket.close({ code: 1013, reason: 'overloaded' }));
  await page.open();
  await page.press('Talk');
  await page.tab.waitForSelector('#conversation li.note');
  await page.status('Not connected');
  await page.gatewayIsIdle();
  return {
    note: await page.text('#conversation li.note'),
    sessions: (await page.sessions()).map(({ status }) => status),
    stillOpen: await page.stillOpen(),
  };
};
