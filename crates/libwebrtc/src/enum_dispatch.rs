//! The macro `enum_dispatch`, part of the public API: `livekit` defines its track types with it.

/// Generates methods of an enum that call the method of the same name on the value in each variant.
///
/// ```
/// # use libwebrtc::enum_dispatch;
/// struct Audio;
/// impl Audio { fn describe(&self, count: usize) -> String { format!("{count} audio frames") } }
/// struct Video;
/// impl Video { fn describe(&self, count: usize) -> String { format!("{count} video frames") } }
///
/// enum Track { Audio(Audio), Video(Video) }
/// impl Track {
///     enum_dispatch!([Audio, Video]; pub fn describe(self: &Self, count: usize) -> String;);
/// }
/// assert_eq!(Track::Video(Video).describe(2), "2 video frames");
/// ```
#[macro_export]
macro_rules! enum_dispatch {
    ($variants:tt; $($(#[$meta:meta])* $vis:vis fn $name:ident $signature:tt -> $ret:ty;)+) => {
        $($crate::enum_dispatch!(@method $variants [$(#[$meta])*] $vis $name $signature -> $ret);)+
    };
    // Variants and arguments cannot be repeated in parallel, so the arguments are passed on as one token tree.
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
