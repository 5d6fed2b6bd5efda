// A participant with the official SDK for Node.js.  peer.cjs URL TOKEN WHAT [ARGUMENTS]
//
//   tone HZ            publishes a tone of amplitude 12000
//   listen             measures received audio, second by second: prints "measured HZ AMPLITUDE SNR"
//
// Prints "joined" after it has joined. Runs until it is killed.

const {
  AudioFrame,
  AudioSource,
  AudioStream,
  LocalAudioTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
} = require('@livekit/rtc-node');
const { measure } = require('./tone.cjs');

const RATE = 48000;

const say = (...words) => process.stdout.write(words.join(' ') + '\n');

async function tone(room, hz) {
  const source = new AudioSource(RATE, 1);
  const track = LocalAudioTrack.createAudioTrack('tone', source);
  const options = new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE });
  const publication = await room.localParticipant.publishTrack(track, options);
  say('published', publication.sid);
  for (let at = 0; ; at += RATE / 100) {
    const samples = Int16Array.from({ length: RATE / 100 }, (_, i) =>
      Math.trunc(12000 * Math.sin((2 * Math.PI * hz * ((at + i) % RATE)) / RATE)),
    );
    await source.captureFrame(new AudioFrame(samples, RATE, 1, samples.length));
  }
}

async function measureTrack(track) {
  let second = [];
  for await (const frame of new AudioStream(track, RATE, 1)) {
    second.push(...frame.data);
    if (second.length >= RATE) {
      say('measured', ...measure(second, RATE).map((value) => value.toFixed(2)));
      second = [];
    }
  }
}

async function main(url, token, what, ...args) {
  const room = new Room();
  room.on(RoomEvent.TrackSubscribed, (track) => {
    if (what === 'listen' && track.kind === TrackKind.KIND_AUDIO) measureTrack(track);
  });
  await room.connect(url, token, { autoSubscribe: true, dynacast: false });
  say('joined');
  if (what === 'tone') await tone(room, Number(args[0]));
}

main(...process.argv.slice(2));
