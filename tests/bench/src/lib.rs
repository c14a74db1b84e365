//! What benches share with other programs that watch validators from outside.

pub mod http;
