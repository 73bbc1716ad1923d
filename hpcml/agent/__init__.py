"""Everything that runs on the site: standard library only, Python 3.6 and newer.

It travels there as one file (see :mod:`hpcml.library`). The rest of hpcml imports only
:mod:`hpcml.agent.wire`, where both sides agree on files and words.
"""
