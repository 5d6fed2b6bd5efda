// One session of the page: its control channel, player and microphone, which are opened and closed together.

import { createSession, endSession, renewControlToken } from './api.js';
import { Channel } from './channel.js';
import { capture, loadLivekitClient, publishInRoom, release, sendFrames } from './microphone.js';
import { takesOpus } from './opus.js';
import { Player } from './player.js';

export class Session {
  id;
  roomName;
  connection = 'connecting'; // then `connected` and `reconnecting`
  microphone = 'off'; // `asking`, `on`

  #key;
  #events;
  #player;
  #channel = null;
  #livekitClient = null;
  #livekit = null; // how to join the room: the newest that the gateway sent
  #closeMicrophone = null;
  #isClosed = false;

  // Construct this in the handler of a click or a key: see Player. `events` are onChange(): `connection` or
  // `microphone` changed; onMessage(message); onRestart(): what was open in the session is void; onMicrophoneLost();
  // and onClosed(error): the session was closed, and not by close().
  constructor(key, events) {
    this.#key = key;
    this.#events = events;
    this.#player = new Player((generation, playedMs) => {
      this.#channel?.send({ type: 'playhead', generation, playedMs });
    });
  }

  // Attaches to an earlier session, or to a new one. Where that fails, nothing is left open.
  async open({ earlier, microphone }) {
    try {
      const session = earlier ? await renewControlToken(earlier.id, this.#key) : await createSession(this.#key);
      this.id = earlier?.id ?? session.session_id;
      this.roomName = earlier?.roomName ?? session.room_name;
      if (microphone && session.livekit_url !== null) this.#livekitClient = await loadLivekitClient();
      const isOpusTaken = await takesOpus();
      if (this.#isClosed) throw new Error('The session was closed.');
      const capabilities = {
        media: this.#livekitClient ? ['livekit', 'ws'] : ['ws'],
        vad: false,
        speech: { codecs: isOpusTaken ? ['opus', 'pcm16le'] : ['pcm16le'], frameMs: 60 },
      };
      this.#channel = new Channel(session, capabilities, () => renewControlToken(this.id, this.#key), {
        onAttached: (ack) => this.#attached(ack),
        onMessage: (message) => this.#receive(message),
        onAudio: (buffer) => this.#player.play(buffer),
        onDisconnected: () => this.#set({ connection: 'reconnecting' }),
        onClosed: (error) => this.close().then(() => this.#events.onClosed(error)),
      });
      await this.#channel.open();
    } catch (error) {
      await this.close();
      if (!earlier && this.id) await endSession(this.id, this.#key).catch(() => {});
      throw error;
    }
  }

  // Asks for the microphone and sends it. Where there is none, this rejects and the session goes on without.
  async useMicrophone() {
    if (this.microphone !== 'off' || this.#isClosed) return;
    this.#set({ microphone: 'asking' });
    let stream = null;
    let stopSending = null;
    const close = async () => {
      if (stream) release(stream);
      await stopSending?.();
    };
    try {
      stream = await capture();
      if (!this.#isClosed) stopSending = await this.#sendMicrophone(stream);
    } catch (error) {
      await close();
      this.#set({ microphone: 'off' });
      throw error;
    }
    if (this.#isClosed) return close();
    this.#closeMicrophone = close;
    // Not told where the page itself stops the track: it was unplugged, or the permission withdrawn.
    stream.getAudioTracks()[0].onended = () => this.#microphoneLost();
    this.#set({ microphone: 'on' });
  }

  // Sends a typed turn. False where there is no connection at the moment.
  say(text) {
    if (!this.#channel.isAttached) return false;
    this.#channel.send({ type: 'say', text });
    return true;
  }

  // Changes options of the session (docs/PROTOCOL.md).
  configure(options) {
    if (this.#channel.isAttached) this.#channel.send({ type: 'configure_session', options });
  }

  async close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const playerClosed = this.#player.close();
    this.#channel?.close();
    await Promise.allSettled([playerClosed, this.#closeMicrophone?.()]);
  }

  async #sendMicrophone(stream) {
    if (this.#livekitClient && this.#livekit) {
      try {
        return await publishInRoom(stream, this.#livekitClient, this.#livekit);
      } catch (error) {
        console.warn('LiveKit is not reached; the microphone is sent on the control channel', error);
      }
    }
    return sendFrames(stream, (samples) => this.#channel.sendAudio(samples));
  }

  async #microphoneLost() {
    const close = this.#closeMicrophone;
    this.#closeMicrophone = null;
    await close?.();
    this.#set({ microphone: 'off' });
    this.#events.onMicrophoneLost();
  }

  #attached(ack) {
    if (!ack.resumed) {
      this.#player.stop();
      this.#channel.send({ type: 'subscribe:participants' });
      this.#events.onRestart();
    }
    this.#set({ connection: 'connected' });
  }

  #receive(message) {
    switch (message.type) {
      case 'connection_ack':
        this.#livekit = message.livekit ?? null;
        break;
      case 'livekit_info':
        this.#livekit = message;
        break;
      case 'speech_begin':
        this.#player.begin(message);
        break;
      case 'audio_stop_request':
        this.#player.stop();
        break;
    }
    this.#events.onMessage(message);
  }

  #set(state) {
    Object.assign(this, state);
    this.#events.onChange();
  }
}
