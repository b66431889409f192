//! A whole log out of what is left of one. Pure.
//!
//! Segments stay as they are as far as their chunks follow each other. Where one breaks off, a new segment
//! begins at that offset, with what else there is: later chunks of the same file, entries of a journal, and,
//! where there is nothing, batches without records.

use std::collections::BTreeMap;

use millstream_protocol::Offset;

use super::{
    SKIPPED,
    survey::{Piece, Survey},
};
use crate::storage::format::chunk::ChunkHeader;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Segments that are used, and the offset up to which they are.
    pub kept: BTreeMap<Offset, Offset>,
    /// Segments that are made.
    pub made: BTreeMap<Offset, Vec<Element>>,
    /// Offsets whose records are gone.
    pub lost: Vec<(Offset, Offset)>,
    /// Offsets that may never have named a record.
    pub skipped: Option<(Offset, Offset)>,
    pub end: Offset,
}

/// A part of a segment that is made, from where the one before it ends up to an offset.
#[derive(Clone, Debug)]
pub(super) enum Element {
    /// Batches of a piece.
    Batches(Piece, Offset),
    /// Nothing is left; what comes before it, or else behind it.
    Hole(Option<ChunkHeader>, Offset),
}

impl Chain {
    /// Puts the log together; `skip` has it go on well beyond what is known of it.
    pub fn build(survey: &Survey, skip: bool) -> Self {
        let mut chain = Self {
            end: survey.origin,
            ..Self::default()
        };
        let mut building = None;
        loop {
            let at = chain.end;
            if let Some(segment) = survey.segments.get(&at).filter(|it| it.good_to > at) {
                chain.kept.insert(at, segment.good_to);
                chain.end = segment.good_to;
                building = None;
                continue;
            }
            let limit = next_boundary(survey, at);
            let element = if let Some(piece) = piece_at(survey, at) {
                Element::Batches(piece.clone(), piece.until.min(limit))
            } else {
                let next = survey.pieces.range(at..).next().map(|(base, _)| *base);
                let missing = at < survey.known_end;
                let Some(next) = next.or(Some(survey.known_end)).filter(|_| missing) else {
                    break;
                };
                let next = next.min(limit);
                chain.lose(at, next);
                Element::Hole(beside(survey, at), next)
            };
            chain.make(&mut building, element);
        }
        if skip {
            let at = chain.end;
            let next = Offset(at.0.saturating_add(SKIPPED));
            chain.skipped = Some((at, next));
            chain.make(&mut building, Element::Hole(beside(survey, at), next));
        }
        chain
    }

    fn make(&mut self, building: &mut Option<Offset>, element: Element) {
        let base = *building.get_or_insert(self.end);
        self.end = element.next();
        self.made.entry(base).or_default().push(element);
    }

    fn lose(&mut self, first: Offset, next: Offset) {
        match self.lost.last_mut() {
            Some(last) if last.1 == first => last.1 = next,
            _ => self.lost.push((first, next)),
        }
    }
}

impl Element {
    pub fn next(&self) -> Offset {
        match self {
            Self::Batches(_, next) | Self::Hole(_, next) => *next,
        }
    }
}

/// Where the next segment that can be used begins, or the next life.
fn next_boundary(survey: &Survey, at: Offset) -> Offset {
    let behind = survey.segments.range(Offset(at.0 + 1)..);
    let mut usable = behind.filter(|(base, segment)| segment.good_to > **base);
    let segment = usable.next().map(|(base, _)| *base);
    let life = survey.lives.next_start(at);
    let ends = segment.into_iter().chain(life);
    ends.min().unwrap_or(Offset(i64::MAX))
}

/// A piece that holds the record at `at`.
fn piece_at(survey: &Survey, at: Offset) -> Option<&Piece> {
    let upto = survey.pieces.range(..=at).rev();
    // A piece of a journal may begin well before.
    let mut pieces = upto.flat_map(|(_, pieces)| pieces);
    pieces.find(|piece| at < piece.until)
}

/// The chunk before `at`, for its epoch and time; or the one behind it.
fn beside(survey: &Survey, at: Offset) -> Option<ChunkHeader> {
    let before = survey.pieces.range(..at).next_back();
    let beside = before.or_else(|| survey.pieces.range(at..).next());
    beside.and_then(|(_, pieces)| Some(pieces.last()?.header))
}
