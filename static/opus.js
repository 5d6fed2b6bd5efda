// Opus frames of a response to samples, where the browser has WebCodecs (docs/PROTOCOL.md, "Audio frames to the client").

const CONFIG = { codec: 'opus', sampleRate: 24_000, numberOfChannels: 1 };
const PADDING_BYTES = 2; // before the packet of the last frame

export async function takesOpus() {
  if (!('AudioDecoder' in globalThis)) return false; // as on a page without TLS
  try {
    return (await AudioDecoder.isConfigSupported(CONFIG)).supported;
  } catch {
    return false;
  }
}

export class OpusDecoder {
  #sampleRate;
  #preSkip;
  #output;
  #last = -1; // the position of the last packet
  #decoder = new AudioDecoder({
    output: (data) => this.#decoded(data),
    error: (error) => console.warn('The response cannot be decoded', error),
  });
  #decodedS = 0;

  // `output(samples, rate, position)` gets floats, and their position in samples of the response.
  constructor({ sampleRate, preSkip = 0 }, output) {
    this.#sampleRate = sampleRate;
    this.#preSkip = preSkip;
    this.#output = output;
    this.#decoder.configure({ ...CONFIG, sampleRate });
  }

  decode(position, payload, isLast) {
    if (position <= this.#last || this.#decoder.state !== 'configured') return; // sent again after a resume
    if (this.#last < 0) this.#decodedS = position / this.#sampleRate;
    this.#last = position;
    const data = isLast ? payload.subarray(PADDING_BYTES) : payload;
    this.#decoder.decode(new EncodedAudioChunk({ type: 'key', timestamp: position * 1e6 / this.#sampleRate, data }));
  }

  close() {
    if (this.#decoder.state !== 'closed') this.#decoder.close();
  }

  // Browsers decode at a rate of their own.
  #decoded(data) {
    const samples = new Float32Array(data.numberOfFrames);
    data.copyTo(samples, { planeIndex: 0, format: 'f32-planar' });
    const rate = data.sampleRate;
    data.close();
    const startS = this.#decodedS - this.#preSkip / this.#sampleRate;
    this.#decodedS += samples.length / rate;
    const early = Math.min(samples.length, Math.max(0, Math.round(-startS * rate)));
    this.#output(samples.subarray(early), rate, Math.round((startS + early / rate) * this.#sampleRate));
  }
}
