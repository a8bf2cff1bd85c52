//! How far a run is, on stderr, where a person looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// One line that says what happens now. Nothing is drawn where stderr isn't a terminal.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Something begins that has no length.
    pub(crate) fn begin(&self, what: &str) {
        self.0.set_style(style("{spinner} {msg}"));
        self.0.set_message(what.to_owned());
    }

    /// Something begins that has one.
    pub(crate) fn count(&self, what: &str, length: usize) {
        self.0.set_style(style("{spinner} {msg} [{bar:30}] {pos}/{len}"));
        self.0.set_length(length as u64);
        self.0.set_position(0);
        self.0.set_message(what.to_owned());
    }

    pub(crate) fn advance(&self, by: usize) {
        self.0.inc(by as u64);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is sound")
}
