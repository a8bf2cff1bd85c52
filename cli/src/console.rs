//! Where output goes: what was asked for to stdout, everything else to stderr. Tables and JSON are
//! written here, and questions asked; nothing else touches the terminal.

use std::io::{self, BufRead, IsTerminal as _, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{args::Format, failure::Failure};

/// Something that a list shows, both ways.
pub(crate) trait Row: Serialize {
    /// The columns' names, in capitals.
    const HEADER: &'static [&'static str];
    /// Its cells, as many as the header has.
    fn cells(&self) -> Vec<String>;
}

/// Something that is shown alone, both ways.
pub(crate) trait Sheet: Serialize {
    /// Its lines: what it is, and its value.
    fn lines(&self) -> Vec<(&'static str, String)>;
}

/// The terminal, or what a test puts in its place.
pub(crate) struct Console {
    format: Format,
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    input: Box<dyn BufRead>,
    /// Somebody reads stderr and can answer on stdin.
    interactive: bool,
    /// Somebody reads stderr.
    explains: bool,
}

impl Console {
    /// The process's own.
    pub(crate) fn terminal(format: Format) -> Self {
        let explains = io::stderr().is_terminal();
        Self {
            format,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            input: Box::new(io::BufReader::new(io::stdin())),
            interactive: explains && io::stdin().is_terminal(),
            explains,
        }
    }

    /// How to print.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// A list, as an array or a table.
    pub(crate) fn list<T: Row>(&mut self, rows: &[T]) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => self.json(&rows),
            Format::Table => {
                let rows = rows.iter().map(Row::cells).collect();
                let table = table(T::HEADER, rows);
                self.line(&table)
            }
        }
    }

    /// One thing, as an object or as lines.
    pub(crate) fn sheet<T: Sheet>(&mut self, sheet: &T) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => self.json(sheet),
            Format::Table => {
                let lines = sheet.lines();
                let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
                for (name, value) in lines {
                    self.line(&format!("{name:width$}  {value}"))?;
                }
                Ok(())
            }
        }
    }

    /// What a change came to: an object for programs, a line for people, both with the revision
    /// that `wattle wait` takes.
    pub(crate) fn done(
        &mut self,
        object: &impl Serialize,
        revision: u64,
        said: &str,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Yaml => self.json(object),
            Format::Table => self.line(&format!("{said} (revision {revision})")),
        }
    }

    /// One object, over several lines.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
        self.line(&text)
    }

    /// A line of what was asked for.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        let written = writeln!(self.out, "{text}").and_then(|()| self.out.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::Unread,
            _ => Failure::Failed(format!("writing to stdout: {error}")),
        })
    }

    /// What was done, for people only: nothing in JSON, nothing where nobody reads it.
    pub(crate) fn explain(&mut self, text: &str) {
        if self.explains && self.format == Format::Table {
            // There is nobody left to tell if stderr is gone.
            let _ = writeln!(self.err, "{text}");
        }
    }

    /// What is missing from what was asked for, whoever reads it.
    pub(crate) fn warn(&mut self, text: &dyn std::fmt::Display) {
        let _ = writeln!(self.err, "warning: {}", harmless(&text.to_string()));
    }

    /// What went wrong.
    pub(crate) fn complain(&mut self, text: &str) {
        let _ = writeln!(self.err, "error: {}", harmless(text));
    }

    /// Asks before something that can't be undone; without a terminal it takes `--yes`.
    pub(crate) fn confirm(&mut self, yes: bool, question: &str) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !self.interactive {
            return Err(Failure::Usage("nobody is here to confirm this: add --yes".into()));
        }
        let _ = write!(self.err, "{question} [y/N] ").and_then(|()| self.err.flush());
        let mut answer = String::new();
        self.input.read_line(&mut answer).map_err(Failure::failed)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::Failed("nothing was done".into())),
        }
    }
}

/// Text that may repeat what somebody wrote: nothing of that steers the terminal.
fn harmless(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.into() }
    };
    text.chars().map(shown).collect()
}

/// Columns two spaces apart, without lines: what `awk` and eyes like.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty().set_header(header.to_vec()).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{cell::RefCell, io::Cursor, rc::Rc};

    use super::*;

    /// What a test reads of what was written.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Rc<RefCell<Vec<u8>>>);

    impl Written {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.borrow().clone()).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console whose user types `input`; `None`: nobody is there.
    pub(crate) fn console(format: Format, input: Option<&str>) -> (Console, Written, Written) {
        let (out, err) = (Written::default(), Written::default());
        let console = Console {
            format,
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            input: Box::new(Cursor::new(input.unwrap_or_default().to_owned())),
            interactive: input.is_some(),
            explains: input.is_some(),
        };
        (console, out, err)
    }

    /// What a list looks like, both ways.
    pub(crate) fn listed<T: Row>(rows: &[T]) -> (String, serde_json::Value) {
        let (mut table, written, _) = console(Format::Table, None);
        table.list(rows).unwrap();
        let (mut json, object, _) = console(Format::Json, None);
        json.list(rows).unwrap();
        (written.text(), serde_json::from_str(&object.text()).unwrap())
    }

    /// What one thing looks like, both ways.
    pub(crate) fn shown<T: Sheet>(sheet: &T) -> (String, serde_json::Value) {
        let (mut table, written, _) = console(Format::Table, None);
        table.sheet(sheet).unwrap();
        let (mut json, object, _) = console(Format::Json, None);
        json.sheet(sheet).unwrap();
        (written.text(), serde_json::from_str(&object.text()).unwrap())
    }

    #[test]
    fn a_question_is_answered_or_skipped_or_impossible() {
        let ask = |input, yes| {
            let (mut console, _, err) = console(Format::Table, input);
            (console.confirm(yes, "Delete x?"), err.text())
        };
        assert_eq!(ask(Some("y\n"), false), (Ok(()), "Delete x? [y/N] ".into()));
        assert_eq!(ask(Some("YES\n"), false).0, Ok(()));
        for no in ["n\n", "\n", ""] {
            assert_eq!(ask(Some(no), false).0, Err(Failure::Failed("nothing was done".into())));
        }
        assert_eq!(ask(None, true), (Ok(()), String::new()));
        assert!(matches!(ask(None, false).0, Err(Failure::Usage(text)) if text.contains("--yes")));
    }

    /// Behind a `head`, say: that is no failure to tell anybody.
    #[test]
    fn that_nobody_reads_on_is_no_news() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (mut console, _, _) = console(Format::Table, None);
        console.out = Box::new(Closed);
        let failure = console.line("x").unwrap_err();
        assert_eq!(failure, Failure::Unread);
        assert!(!failure.is_news());
    }

    #[test]
    fn what_somebody_wrote_doesnt_steer_the_terminal() {
        let (mut console, _, err) = console(Format::Table, None);
        console.complain("there is no node \u{1b}[2J\u{9b}x\nnor é");
        assert_eq!(err.text(), "error: there is no node \\u{1b}[2J\\u{9b}x\nnor é\n");
    }

    #[test]
    fn explanations_are_for_people() {
        for (format, input, expected) in [
            (Format::Table, Some(""), "made\n"),
            (Format::Table, None, ""),
            (Format::Json, Some(""), ""),
        ] {
            let (mut console, out, err) = console(format, input);
            console.explain("made");
            assert_eq!((out.text().as_str(), err.text().as_str()), ("", expected));
        }
    }

    #[test]
    fn tables_have_plain_columns() {
        let rows = vec![vec!["a".into(), "long value".into()], vec!["bbb".into(), "-".into()]];
        assert_eq!(table(&["NAME", "X"], rows), "NAME  X\na     long value\nbbb   -");
    }
}
