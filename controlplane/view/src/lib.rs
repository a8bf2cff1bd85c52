//! Hop 2: the view. Which entries and removals bring an agent from one revision to the next.
//!
//! Pure code: it is fed by list-then-watch, keeps the current keys in memory, and answers
//! [`Index::pull`]. It knows neither tokio, tonic, the store nor the bytes' meaning.
