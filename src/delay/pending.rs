//! Which delay ids are pending: a bit for each, in pages that vanish when they are empty. It is the truth;
//! whatever else is kept by due time may hold what is over.

use std::collections::BTreeMap;

use millstream_protocol::{DecodeError, Offset, Reader, Wire};

const PAGE_BITS: u64 = 1 << 16;
const WORDS: usize = (PAGE_BITS / 64) as usize;
/// A page with fewer bits is stored as a list.
const LISTED_BELOW: u32 = 4096;

/// A set of delay ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pages: BTreeMap<u64, Page>,
    count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Page {
    words: Box<[u64; WORDS]>,
    count: u32,
}

impl Page {
    fn empty() -> Self {
        Self {
            words: Box::new([0; WORDS]),
            count: 0,
        }
    }
}

fn place(id: Offset) -> (u64, usize, u64) {
    let id = u64::try_from(id.0).expect("delay ids count from 0");
    let bit = id % PAGE_BITS;
    let word = usize::try_from(bit / 64).expect("below a page's words");
    (id / PAGE_BITS, word, 1 << (bit % 64))
}

impl Pending {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether it is one.
    pub fn contains(&self, id: Offset) -> bool {
        if id.0 < 0 {
            return false;
        }
        let (page, word, mask) = place(id);
        let page = self.pages.get(&page);
        page.is_some_and(|page| page.words[word] & mask != 0)
    }

    /// Adds one; false if it was there.
    pub fn insert(&mut self, id: Offset) -> bool {
        let (page, word, mask) = place(id);
        let page = self.pages.entry(page).or_insert_with(Page::empty);
        let new = page.words[word] & mask == 0;
        page.words[word] |= mask;
        page.count += u32::from(new);
        self.count += u64::from(new);
        new
    }

    /// Takes one out; false if it was not there.
    pub fn remove(&mut self, id: Offset) -> bool {
        if !self.contains(id) {
            return false;
        }
        let (number, word, mask) = place(id);
        let page = self.pages.get_mut(&number).expect("it holds the bit");
        page.words[word] &= !mask;
        page.count -= 1;
        self.count -= 1;
        if page.count == 0 {
            self.pages.remove(&number);
        }
        true
    }

    /// Takes out all from `end` on.
    pub fn cut(&mut self, end: Offset) {
        let all: Vec<Offset> = self.iter_from(end).collect();
        for id in all {
            self.remove(id);
        }
    }

    /// Takes out all below `start`.
    pub fn cut_below(&mut self, start: Offset) {
        while let Some(first) = self.first().filter(|first| *first < start) {
            self.remove(first);
        }
    }

    /// The least one.
    pub fn first(&self) -> Option<Offset> {
        self.iter_from(Offset::ZERO).next()
    }

    /// All from `start` on, ascending.
    pub fn iter_from(&self, start: Offset) -> impl Iterator<Item = Offset> + '_ {
        let first = u64::try_from(start.0).unwrap_or(0);
        let pages = self.pages.range(first / PAGE_BITS..);
        let ids = pages.flat_map(|(number, page)| {
            let words = page.words.iter().enumerate();
            words.flat_map(move |(at, word)| {
                let base = number * PAGE_BITS + at as u64 * 64;
                Bits(*word).map(move |bit| base + u64::from(bit))
            })
        });
        let ids = ids.skip_while(move |id| *id < first);
        ids.map(|id| Offset(i64::try_from(id).expect("it was an offset")))
    }
}

/// The numbers of the bits that are set.
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bit = (self.0 != 0).then(|| self.0.trailing_zeros());
        self.0 &= self.0.wrapping_sub(1);
        bit
    }
}

/// Pages: number, count, then so many 16-bit places, or all words.
impl Wire for Pending {
    const MIN_SIZE: usize = 4;

    fn encode(&self, out: &mut Vec<u8>) {
        u32::try_from(self.pages.len())
            .expect("pages fit memory")
            .encode(out);
        for (number, page) in &self.pages {
            number.encode(out);
            page.count.encode(out);
            if page.count < LISTED_BELOW {
                for (at, word) in (0u16..).zip(page.words.iter()) {
                    for bit in Bits(*word) {
                        (at * 64 + u16::try_from(bit).expect("below 64")).encode(out);
                    }
                }
            } else {
                page.words.iter().for_each(|word| word.encode(out));
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut pending = Self::default();
        for _ in 0..u32::decode(reader)? {
            let number = u64::decode(reader)?;
            let count = u32::decode(reader)?;
            let mut page = Page::empty();
            if count < LISTED_BELOW {
                for _ in 0..count {
                    let bit = usize::from(u16::decode(reader)?);
                    page.words[bit / 64] |= 1 << (bit % 64);
                }
            } else {
                for word in page.words.iter_mut() {
                    *word = u64::decode(reader)?;
                }
            }
            page.count = page.words.iter().map(|word| word.count_ones()).sum();
            let in_range = number < u64::MAX / PAGE_BITS / 2;
            if page.count != count || count == 0 || !in_range {
                return Err(DecodeError::OutOfRange("a page of delay ids"));
            }
            pending.count += u64::from(count);
            if pending.pages.insert(number, page).is_some() {
                return Err(DecodeError::OutOfRange("a page of delay ids comes twice"));
            }
        }
        Ok(pending)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(ops in prop::collection::vec((any::<bool>(), 0i64..200_000), 0..300), dense in 0i64..9_000) {
            let mut pending = Pending::default();
            let mut model = BTreeSet::new();
            for id in 0..dense {
                pending.insert(Offset(id));
                model.insert(Offset(id));
            }
            for (insert, id) in ops {
                let id = Offset(id);
                if insert {
                    prop_assert_eq!(pending.insert(id), model.insert(id));
                } else {
                    prop_assert_eq!(pending.remove(id), model.remove(&id));
                }
                prop_assert_eq!(pending.contains(id), model.contains(&id));
            }
            prop_assert_eq!(pending.count(), model.len() as u64);
            prop_assert_eq!(pending.first(), model.first().copied());
            prop_assert!(pending.iter_from(Offset(70)).eq(model.range(Offset(70)..).copied()));
            let mut bytes = Vec::new();
            pending.encode(&mut bytes);
            let again = Pending::decode(&mut Reader::new(&bytes)).expect("what was encoded");
            prop_assert_eq!(&again, &pending);
            pending.cut(Offset(100));
            model.split_off(&Offset(100));
            pending.cut_below(Offset(9));
            model = model.split_off(&Offset(9));
            prop_assert!(pending.iter_from(Offset::ZERO).eq(model.iter().copied()));
        }
    }
}
