"""Other projects' generators: one module each, from the state dict that they publish.

An importer has `read(state, *, options) -> (module, Spec)`: it rebuilds the network in modules of
its own under the published names, loads them strictly, and says what the bundle has to know. Its
keyword-only arguments are the options of `gan export --from NAME --set key=value`. NAME may also be
`package.module:function` of one's own, such a `read`.
"""
