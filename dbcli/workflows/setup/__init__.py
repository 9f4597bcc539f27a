"""Before a command works: the project is opened, its base recognised and guarded against change, the settings that hold
are fixed, and files, folders and packages that the command line names are looked for.
"""
