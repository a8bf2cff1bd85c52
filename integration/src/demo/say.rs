//! How demos talk.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a demo talks to a person")]

/// Begins a chapter.
pub(crate) fn chapter(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

/// Says something that happened.
pub(crate) fn line(text: &str) {
    println!("  {text}");
}

/// Says what went wrong.
pub(crate) fn failed(error: &anyhow::Error) {
    eprintln!("\ndemo failed: {error:#}");
}
