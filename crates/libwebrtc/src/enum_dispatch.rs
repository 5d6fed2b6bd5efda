//! A macro of the public API: `livekit` builds its own track types with it.

/// Writes methods of an enum that call the method of the same name on whatever its variant holds.
///
/// ```
/// # use libwebrtc::enum_dispatch;
/// struct Dog;
/// impl Dog { fn says(&self, times: usize) -> String { "woof ".repeat(times) } }
/// struct Cat;
/// impl Cat { fn says(&self, times: usize) -> String { "miaow ".repeat(times) } }
///
/// enum Pet { Dog(Dog), Cat(Cat) }
/// impl Pet {
///     enum_dispatch!([Dog, Cat]; pub fn says(self: &Self, times: usize) -> String;);
/// }
/// assert_eq!(Pet::Cat(Cat).says(2), "miaow miaow ");
/// ```
#[macro_export]
macro_rules! enum_dispatch {
    ($variants:tt; $($(#[$meta:meta])* $vis:vis fn $name:ident $signature:tt -> $ret:ty;)+) => {
        $($crate::enum_dispatch!(@method $variants [$(#[$meta])*] $vis $name $signature -> $ret);)+
    };
    // The list of variants and that of arguments can't be repeated side by side: the arguments travel
    // on as one token tree.
    (@method $variants:tt [$(#[$meta:meta])*] $vis:vis $name:ident
     ($this:ident: $this_type:ty $(, $arg:ident: $arg_type:ty)* $(,)?) -> $ret:ty) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name($this: $this_type $(, $arg: $arg_type)*) -> $ret {
            $crate::enum_dispatch!(@arms $variants $this $name ($($arg),*))
        }
    };
    (@arms [$($variant:ident),+ $(,)?] $this:ident $name:ident $args:tt) => {
        match $this {
            $(Self::$variant(held) => held.$name $args,)+
        }
    };
}
