// The microphone, and the two ways that it gets to the gateway: a track in the LiveKit room, or binary frames on the
// control channel.

// Why there is no microphone, as a sentence for the user.
export class NoMicrophone extends Error {}

const REASONS = {
  NotAllowedError: 'This page may not use the microphone.',
  SecurityError: 'This page may not use the microphone.',
  NotFoundError: 'No microphone was found.',
  NotReadableError: 'The microphone does not work or is in use by another program.',
};

// Asks the user and resolves with a MediaStream of one audio track.
export async function capture() {
  if (!navigator.mediaDevices) {
    throw new NoMicrophone('Browsers give the microphone only to pages from HTTPS or from this machine.');
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    throw new NoMicrophone(REASONS[error.name] ?? `The microphone cannot be used: ${error.message}.`);
  }
}

export function release(stream) {
  for (const track of stream.getTracks()) track.stop();
}

// LiveKit's client, where the gateway has it; null where it does not, and with `?media=ws`.
export async function loadLivekitClient() {
  if (new URLSearchParams(location.search).get('media') === 'ws') return null;
  if (!globalThis.LivekitClient) {
    await new Promise((resolve) => {
      const script = Object.assign(document.createElement('script'), { src: '/vendor/livekit-client.js' });
      script.onload = script.onerror = resolve;
      document.head.append(script);
    });
  }
  return globalThis.LivekitClient ?? null;
}

// Publishes the stream in a room. Resolves with what ends that; leaves nothing behind where it fails.
export async function publishInRoom(stream, { Room, Track }, { url, token, trackName }) {
  const room = new Room();
  try {
    await room.connect(url, token);
    const [track] = stream.getAudioTracks();
    await room.localParticipant.publishTrack(track, { source: Track.Source.Microphone, name: trackName });
  } catch (error) {
    await room.disconnect();
    throw error;
  }
  return () => room.disconnect();
}

// Sends the stream's samples to `send`, at 16 kHz. Resolves with what ends that; leaves nothing behind where it fails.
export async function sendFrames(stream, send) {
  const context = new AudioContext({ sampleRate: 16_000 });
  try {
    await context.audioWorklet.addModule('/static/capture-worklet.js');
    const worklet = new AudioWorkletNode(context, 'capture', { numberOfOutputs: 0 });
    worklet.port.onmessage = ({ data }) => send(data);
    context.createMediaStreamSource(stream).connect(worklet);
  } catch (error) {
    await context.close();
    throw error;
  }
  return () => context.close();
}
