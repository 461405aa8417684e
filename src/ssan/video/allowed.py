"""Formats that FFmpeg may be asked to read: the containers, codecs and pictures that people have, and no other.

FFmpeg knows hundreds of formats, and tells by a file's content which one it is. Some are lists that lead elsewhere: to
other files, to addresses in the network, to ports that it opens and listens at. A name ending in .mp4 is no promise.
"""

CONTAINERS = ",".join(
    (
        "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv", "live_flv", "kux", "mpegts", "mpeg",
        "mpegvideo", "h264", "hevc", "vvc", "av1", "obu", "ivf", "m4v", "h261", "h263", "vc1", "vc1test", "cavsvideo",
        "dirac", "mjpeg", "mjpeg_2000", "smjpeg", "mpjpeg", "ogg", "rm", "ivr", "nut", "mxf", "gxf", "dv", "wtv", "ty",
        "pva", "nsv", "nuv", "lmlm4", "dhav", "gif", "apng", "yuv4mpegpipe", "aiff", "wav", "mp3", "aac", "ac3", "flac",
    )
)  # fmt: skip
"""By FFmpeg's names; those of sound are there to be told that there is sound alone in them."""

CODECS = frozenset(
    (
        "h264", "hevc", "vvc", "libdav1d", "av1", "libaom-av1", "vp9", "libvpx-vp9", "vp8", "libvpx", "vp7", "vp6",
        "vp6a", "vp6f", "vp5", "vp4", "vp3", "theora", "mpeg4", "mpeg2video", "mpeg1video", "mpegvideo", "msmpeg4",
        "msmpeg4v1", "msmpeg4v2", "wmv1", "wmv2", "wmv3", "vc1", "vc1image", "wmv3image", "mss1", "mss2", "h263",
        "h263i", "h263p", "h261", "flv", "svq1", "svq3", "rv10", "rv20", "rv30", "rv40", "cavs", "dirac", "mjpeg",
        "mjpegb", "jpeg2000", "libopenjpeg", "jpegls", "png", "apng", "gif", "webp", "bmp", "tiff", "prores", "dnxhd",
        "cfhd", "hap", "dvvideo", "ffv1", "ffvhuff", "huffyuv", "utvideo", "magicyuv", "lagarith", "snow", "rawvideo",
        "v210", "v210x", "v308", "v408", "v410", "r210", "yuv4", "wrapped_avframe", "qtrle", "rpza", "smc", "8bps",
        "cinepak", "indeo2", "indeo3", "indeo4", "indeo5", "msvideo1", "msrle", "camtasia", "tscc2", "cscd", "zmbv",
        "flashsv", "flashsv2", "screenpresso", "g2m", "fraps", "cllc", "asv1", "asv2", "aasc", "mszh", "zlib",
        "truemotion1", "truemotion2", "nuv", "amv", "speedhq", "notchlc", "evc", "apv",
    )
)  # fmt: skip
"""By the names of FFmpeg's decoders."""

SOUND = (
    "aac", "aac_latm", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float", "ac3", "ac3_fixed", "eac3", "opus",
    "libopus", "vorbis", "libvorbis", "flac", "alac", "dca", "truehd", "mlp", "wmav1", "wmav2", "wmapro", "wmalossless",
    "amrnb", "amrwb", "cook", "sipr", "ra_144", "ra_288", "speex", "libspeex", "nellymoser", "gsm_ms", "qdm2",
    "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt", "adpcm_swf", "adpcm_yamaha", "pcm_alaw", "pcm_mulaw", "pcm_u8",
    "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le", "pcm_f32be",
    "pcm_f64le", "pcm_bluray", "pcm_dvd",
)  # fmt: skip
"""What FFmpeg may decode a little of to find out what there is beside the pictures; none of it is listened to."""

WHITELISTS = {
    "protocol_whitelist": "file",
    "format_whitelist": CONTAINERS,
    "codec_whitelist": ",".join((*sorted(CODECS), *SOUND)),
}
"""For FFmpeg's own opening of a file."""

PICTURES = {b"\x89PNG\r\n\x1a\n": "png_pipe", b"BM": "bmp_pipe", b"GIF8": "gif", b"RIFF": "webp_pipe"}
"""How a file of pixels begins, and FFmpeg's reader of it. JPEG is read without FFmpeg."""

NO_PROTOCOL = "none"
"""No protocol has this name: what is read comes out of memory, and leads nowhere else."""
