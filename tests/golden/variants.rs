//! Which variants an enum has, asked from its own `Deserialize`: nobody has to keep a list.

use crate::man_page;
use serde::de::{Deserialize, Deserializer, Error, Visitor, value};
use std::collections::BTreeSet;
use std::fmt::Debug;

/// Fails unless `examples` show each variant of `T`, and the man page names it.
pub fn check_all_shown<T: for<'de> Deserialize<'de> + Debug>(examples: impl IntoIterator<Item = T>) {
    let shown: BTreeSet<String> = examples.into_iter().map(|example| name(&example)).collect();
    let page = man_page::text().to_lowercase();
    let of = std::any::type_name::<T>();
    for variant in variants::<T>() {
        assert!(page.contains(&kebab(variant)), "tdfs-wire.5 does not name {of}::{variant}");
        assert!(shown.contains(variant), "{of}::{variant} has no golden file: add a value for it");
    }
}

/// The name of the variant that `value` is, as `derive(Debug)` begins.
fn name(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// `NoReplace` as `no-replace`.
fn kebab(variant: &str) -> String {
    let mut kebab = String::new();
    for c in variant.chars() {
        if c.is_uppercase() && !kebab.is_empty() {
            kebab.push('-');
        }
        kebab.extend(c.to_lowercase());
    }
    kebab
}

fn variants<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    let asked = T::deserialize(Asker(&mut names));
    assert!(asked.is_err() && !names.is_empty(), "{} is no enum", std::any::type_name::<T>());
    names
}

/// Learns what is expected and gives nothing.
struct Asker<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for Asker<'_> {
    type Error = value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("no enum"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        self.0.extend(variants);
        Err(value::Error::custom("asked"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
