mod handshake;
mod held;
mod limit;
mod raw_http;
mod rfc6455;
