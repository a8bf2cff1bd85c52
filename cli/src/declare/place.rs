//! Where something stands in a file, and what is wrong there.

use std::{fmt, rc::Rc};

use crate::failure::Failure;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A place in one of the files that were given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Which of the files, in the order they were given.
    order: usize,
    mark: Mark,
    file: Rc<str>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.mark.line, self.mark.column)
    }
}

/// A file that is being read.
#[derive(Debug, Clone)]
pub(crate) struct File {
    order: usize,
    name: Rc<str>,
}

impl File {
    pub(crate) fn new(order: usize, name: &str) -> Self {
        Self { order, name: name.into() }
    }

    pub(crate) fn place(&self, mark: Mark) -> Place {
        Place { order: self.order, mark, file: Rc::clone(&self.name) }
    }
}

/// What is wrong with the files, as far as it has been found.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(Vec<(Option<Place>, String)>);

impl Mistakes {
    pub(crate) fn add(&mut self, place: Place, why: impl fmt::Display) {
        self.0.push((Some(place), why.to_string()));
    }

    /// Refuses the files for what is wrong with them.
    pub(crate) fn check(self) -> Result<(), Failure> {
        self.refuse("nothing was changed, because there are mistakes:")
    }

    /// A mistake of which nobody knows where it stands.
    pub(crate) fn add_somewhere(&mut self, why: impl fmt::Display) {
        self.0.push((None, why.to_string()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them in the files' order, those without a place last; `Ok` where there are none.
    pub(crate) fn refuse(mut self, heading: &str) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.sort_by(|(a, _), (b, _)| (a.is_none(), a).cmp(&(b.is_none(), b)));
        let line = |(place, why): &(Option<Place>, String)| match place {
            Some(place) => format!("\n{place}: {why}"),
            None => format!("\n{why}"),
        };
        let lines: String = self.0.iter().map(line).collect();
        Err(Failure::Failed(format!("{heading}{lines}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_come_in_the_order_of_the_files() {
        let (first, second) = (File::new(0, "z.yaml"), File::new(1, "a.yaml"));
        let at = |line, column| Mark { line, column };
        let mut mistakes = Mistakes::default();
        mistakes.add_somewhere("five");
        mistakes.add(second.place(at(1, 1)), "four");
        mistakes.add(first.place(at(10, 1)), "three");
        mistakes.add(first.place(at(9, 5)), "two");
        mistakes.add(first.place(at(9, 4)), "one");
        let text = mistakes.refuse("nothing was changed").unwrap_err().to_string();
        assert_eq!(
            text,
            "nothing was changed\nz.yaml:9:4: one\nz.yaml:9:5: two\nz.yaml:10:1: three\n\
             a.yaml:1:1: four\nfive"
        );
        assert_eq!(Mistakes::default().refuse("x"), Ok(()));
    }
}
