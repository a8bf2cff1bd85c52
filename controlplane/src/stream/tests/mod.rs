//! Streams over real TLS on loopback, against the embedded store and its feed: send, expect, cut
//! the link, expect the resume.

mod acks;
mod agent;
mod ends;
mod flow;
mod resume;
mod wait;
mod world;
