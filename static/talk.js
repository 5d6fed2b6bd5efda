// The talk page: what it shows, and what its controls do.
//
//   session.js       one session: REST (api.js), control channel (channel.js), player.js, microphone.js
//   transcript.js    the lines of the conversation

import { NoMicrophone } from './microphone.js';
import { Session } from './session.js';
import { Transcript } from './transcript.js';

const $ = (id) => document.getElementById(id);
const transcript = new Transcript($('conversation'));

let session = null; // the one that is open
let opening = null; // the promise of the one that is being opened
let earlier = null; // one that the gateway closed and that can be attached to again
let userSpeaks = false;

// --- What is shown --------------------------------------------------------------------------------

function statusText() {
  if (opening) return 'Connecting';
  if (!session) return 'Not connected';
  if (session.connection === 'reconnecting') return 'Connection lost, reconnecting';
  if (session.microphone === 'asking') return 'Waiting for the microphone';
  if (session.microphone === 'off') return 'Typing only';
  return userSpeaks ? 'Hearing you' : 'Listening';
}

function render() {
  $('status').textContent = statusText();
  const button = $('start');
  // Not `disabled`: that would take the keyboard focus away.
  button.setAttribute('aria-disabled', String(Boolean(opening)));
  button.setAttribute('aria-busy', String(Boolean(opening)));
  button.classList.toggle('active', Boolean(session));
  if (session) button.textContent = 'Stop';
  else button.textContent = earlier ? 'Connect again' : 'Talk';
  $('use-microphone').hidden = session?.microphone !== 'off';
}

const participants = new Map();

function showParticipants({ snapshot, diff }) {
  if (snapshot) participants.clear();
  for (const { sid } of diff?.left ?? []) participants.delete(sid);
  for (const participant of [...(snapshot ?? []), ...(diff?.joined ?? []), ...(diff?.updated ?? [])]) {
    participants.set(participant.sid, participant);
  }
  const names = [...participants.values()].map(({ identity, name }) => name || identity);
  $('present').textContent = names.join(', ') || 'nobody';
}

function showTiming({ finalMs, firstTokenMs, firstAudioMs }) {
  const steps = { 'final transcript': finalMs, 'first token': firstTokenMs, 'first audio': firstAudioMs };
  $('timing').textContent = Object.entries(steps)
    .filter(([, ms]) => ms !== undefined).map(([step, ms]) => `${step} after ${ms} ms`).join(', ');
}

function show(message) {
  switch (message.type) {
    case 'connection_ack':
      $('session').textContent = message.sessionId;
      break;
    case 'media_state':
      $('media').textContent = `${message.active} (${message.reason.replaceAll('_', ' ')})`;
      break;
    case 'stt_state':
    case 'llm_state':
    case 'tts_state':
      if (message.message) transcript.note(message.message);
      break;
    case 'speech_started':
    case 'speech_ended':
      userSpeaks = message.type === 'speech_started';
      render();
      break;
    case 'data_stream':
      transcript.transcription(message.data);
      break;
    case 'answer_delta':
      transcript.responseDelta(message);
      break;
    case 'answer_done':
      transcript.responseDone(message);
      break;
    case 'turn_metrics':
      showTiming(message);
      break;
    case 'participants:update':
      showParticipants(message);
      break;
    case 'error':
      transcript.note(message.message);
      break;
  }
}

// --- What the controls do -------------------------------------------------------------------------

let retry = null; // what to do again once there is an API key

function askForKey() {
  $('login').hidden = false;
  $('key').focus();
}

function fail(error) {
  if (error.status !== 401 && error.status !== 403) return transcript.note(error.message);
  transcript.note($('key').value ? 'The gateway did not accept the API key.' : 'This gateway needs an API key.');
  askForKey();
}

// Whether the session is over, so that the next attempt has to make a new one.
const isGone = (error) => error.isSessionOver || error.status === 404;

function setMode() {
  session?.configure({ mode: $('captions').checked ? 'captions' : 'conversation' });
}

function open(options) {
  opening ??= openSession(options).finally(() => {
    opening = null;
    render();
  });
  render();
  return opening;
}

async function openSession({ microphone }) {
  const opened = new Session($('key').value, {
    onChange: render,
    onMessage: show,
    onRestart: () => {
      transcript.restart();
      userSpeaks = false;
    },
    onMicrophoneLost: () => transcript.note('The microphone is gone. You can go on typing.'),
    onClosed: (error) => {
      session = null;
      earlier = isGone(error) ? null : opened;
      render();
      fail(error);
    },
  });
  try {
    await opened.open({ earlier, microphone });
  } catch (error) {
    if (!earlier || !isGone(error)) return fail(error);
    earlier = null;
    return openSession({ microphone });
  }
  session = opened;
  earlier = null;
  if ($('captions').checked) setMode();
  $('room').textContent = session.roomName;
  $('login').hidden = true;
  // Typing works while the user is being asked.
  if (microphone) useMicrophone();
}

async function useMicrophone() {
  try {
    await session.useMicrophone();
  } catch (error) {
    const why = error instanceof NoMicrophone ? error.message : `The microphone cannot be sent: ${error.message}.`;
    transcript.note(`${why} You can type instead.`);
  }
}

async function talk() {
  if (opening) return;
  retry = talk;
  if (!session) return open({ microphone: true });
  const closing = session;
  session = null;
  await closing.close();
  render();
}

async function sendTyped() {
  const text = $('line').value.trim();
  if (!text) return;
  retry = sendTyped;
  if (!session) await open({ microphone: false });
  if (!session) return;
  if (!session.say(text)) return transcript.note('Not sent: there is no connection at the moment.');
  transcript.typed(text);
  if ($('line').value.trim() === text) $('line').value = '';
}

$('start').onclick = talk;

$('captions').onchange = setMode;

$('use-microphone').onclick = () => {
  $('start').focus(); // this button goes away
  useMicrophone();
};

$('typed').onsubmit = (event) => {
  event.preventDefault();
  sendTyped();
};

$('login').onsubmit = (event) => {
  event.preventDefault();
  $('start').focus(); // the form goes away
  (retry ?? talk)();
};

// Nobody can resume the session of a page that is left.
addEventListener('pagehide', () => session?.close());

render();
