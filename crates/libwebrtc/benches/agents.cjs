// Receiving agents with the official SDK for Node.js: agents.cjs URL TOKEN...  Prints their resource usage as JSON.

const fs = require('node:fs');
const { AudioStream, Room, RoomEvent, TrackKind } = require('@livekit/rtc-node');

const WINDOW_S = 15;

let frames = 0;

async function countFrames(track) {
  for await (const _ of new AudioStream(track, 16000, 1)) frames++;
}

const after = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

function cpuSeconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function kilobytes(name) {
  return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(fs.readFileSync('/proc/self/status', 'utf8'))[1]);
}

async function main(url, ...tokens) {
  const rooms = [];
  for (const token of tokens) {
    const room = new Room();
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track.kind === TrackKind.KIND_AUDIO) countFrames(track);
    });
    await room.connect(url, token, { autoSubscribe: true, dynacast: false });
    rooms.push(room);
  }
  await after(3);
  const [cpu, start, before] = [cpuSeconds(), process.hrtime.bigint(), frames];
  await after(WINDOW_S);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const report = {
    agents: tokens.length,
    cpu_s_per_agent_s: (cpuSeconds() - cpu) / seconds / tokens.length,
    rss_kb: kilobytes('VmRSS'),
    private_kb: kilobytes('RssAnon'),
    frames_per_agent_s: (frames - before) / seconds / tokens.length,
  };
  fs.writeSync(1, JSON.stringify(report) + '\n');
  process.exit(0);
}

main(...process.argv.slice(2));
