"""A repository in an object store that speaks S3: `s3://BUCKET/PREFIX`, laid out as in a directory.

    PREFIX/MODEL/labels.json              replaced whole, by compare and swap on its ETag
    PREFIX/MODEL/VERSION/.claim           made first, and only where it is not there: whoever makes it has the number
    PREFIX/MODEL/VERSION/*                the files of the bundle
    PREFIX/MODEL/VERSION/manifest.json    made last: without it there is no such version

Who reads keeps versions in a mirror, a directory on this machine, verified before they are seen there.
Endpoint and credentials come from the environment (`AWS_*`) alone. `pip install 'lowpass[s3]'`.
"""
