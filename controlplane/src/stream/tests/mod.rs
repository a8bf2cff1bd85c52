//! Streams over real TLS on loopback, against the embedded store and its feed: send, expect, cut
//! the link, expect the resume.

mod acks;
mod agent;
mod cuts;
mod ends;
mod flow;
mod hostile;
mod inspect;
mod keys;
mod lagging;
mod malformed;
mod observations;
mod resume;
mod secrets;
mod sight;
mod veil;
mod wait;
mod world;
